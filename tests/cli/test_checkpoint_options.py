"""What a person spells out about a checkpoint: each option by its flag, in every verb that reads one."""

from __future__ import annotations

from dataclasses import fields

import pytest

from vlacompile.cli.arguments import checkpoint_options
from vlacompile.cli.main import parse
from vlacompile.cli.verify_episodes import require_no_options
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions, flag_of
from vlart.errors import SourceError, UsageError

FIELDS = {f.name: f for f in fields(CheckpointOptions)}


def given(name: str) -> tuple[list[str], CheckpointOptions]:
    """(arguments, the options that they are)"""
    value = "x" if FIELDS[name].metadata["metavar"] else True
    return [flag_of(FIELDS[name]), *(["x"] if value == "x" else [])], CheckpointOptions(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("verb", [["build", "here"], ["plan", "here"], ["verify", "a.vlab"]])
def test_an_option_is_taken_by_its_flag(verb, name):
    arguments, wanted = given(name)
    assert checkpoint_options(parse([*verb, *arguments])) == wanted and checkpoint_options(parse(verb)) == NONE
    assert " ".join(arguments) == " ".join(wanted.spelled_out())


@pytest.mark.parametrize("name", FIELDS)
def test_a_source_that_does_not_have_it_refuses_it(name):
    _, options = given(name)
    with pytest.raises(SourceError, match=f"{flag_of(FIELDS[name])} does not apply"):
        options.require_none("a policy")
    options.require_only("a checkpoint", name)


@pytest.mark.parametrize("name", FIELDS)
def test_verify_refuses_it_without_a_dataset(name):
    arguments, _ = given(name)
    with pytest.raises(UsageError, match=f"{arguments[0]} is given without a dataset"):
        require_no_options(parse(["verify", "a.vlab", *arguments]))
