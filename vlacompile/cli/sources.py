"""SOURCE on the command line, for the verbs that take it: fetched from the Hub, and read in another environment."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vlacompile.cli.terminal import Terminal
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions

if TYPE_CHECKING:
    from vlacompile.frontends.environments import Environment

HUB = """A name on the Hub is looked up only if there is no such path.
huggingface_hub fetches what its cache lacks, with its own settings:
`hf auth login` or HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT."""


def fetched(args, terminal: Terminal, weights: bool = True, options: CheckpointOptions = NONE) -> str | dict[str, str]:
    """The sources, names on the Hub as directories of its cache. Raises SourceError if one cannot be a policy."""
    from vlacompile.phases.load_policy import check_source, fetch_sources, parse_sources

    source = parse_sources(args.source)
    check_source(source)
    with terminal.phases() as phases:
        return fetch_sources(source, weights, phases, options)


def without_weights(texts: list[str], source: str | dict[str, str], options: CheckpointOptions = NONE) -> bool:
    """Whether a source was fetched without its weights, for a verb that can do without. texts: as given."""
    from vlacompile.phases.load_policy import hub_revisions, needed_weights, parse_sources

    given, found = (s if isinstance(s, Mapping) else {"": s} for s in (parse_sources(texts), source))
    return any(given[key] != found[key] and not needed_weights(Path(found[key]), options)
               for key in hub_revisions(found))


def run_in(environment: Environment, args, source: str | dict[str, str]) -> NoReturn:
    """Runs this verb with an environment's interpreter, on the same files: a branch may move meanwhile."""
    texts = [f"{name}={s}" for name, s in source.items()] if isinstance(source, Mapping) else [source]
    command = [environment.python, "-m", "vlacompile.cli.main", *_with_sources(args, texts)]
    raise SystemExit(subprocess.call(command))


def _with_sources(args, texts: list[str]) -> list[str]:
    """The arguments with these sources: in the one place where they are what is parsed as SOURCE, since an option may
    have the same value."""
    from vlacompile.cli.main import parse

    count = len(texts)
    for i in range(len(args.argv) - count + 1):
        if args.argv[i:i + count] == args.source:
            changed = [*args.argv[:i], *texts, *args.argv[i + count:]]
            if parse(changed).source == texts:
                return changed
    raise AssertionError("sources stand beside each other")
