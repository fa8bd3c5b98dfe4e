"""A router before a bundle of several backbones: what a task runs on, and what it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.policy import test_text as text
from tests.policy.test_join_backbones import MASK, TOKENS, drawn, joined, original, pair
from tests.runtime.forking import in_child
from tests.samples import policies
from vlacompile.routing.backbone_costs import Cost
from vlacompile.routing.fit import fit_table
from vlacompile.routing.logs import Episode
from vlacompile.routing.table import Rule
from vlacompile.routing.table_binary import table_bytes
from vlart.errors import ConfigError, RuntimeFailure
from vlart.runtime.router import Router

PUT, ODD = "put the bowl on the plate", "put the plate on the bowl"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "every.toml"
    path.write_text(policies.EVERY_STAGE, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def spoken(recipe, tmp_path_factory) -> vc.Bundle:
    members = {n: replace(p, texts={TOKENS: vc.Text(text.tokenizer().to_str(), MASK, vc.Fit(pad=0))})
               for n, p in pair().items()}
    return vc.build(vc.join(members, "spoken"), recipe=recipe, out=tmp_path_factory.mktemp("spoken") / "s.vlab")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """PUT: light does as well as heavy. ODD: it does not."""
    rows = {("light", PUT): 1, ("heavy", PUT): 1, ("light", ODD): 0, ("heavy", ODD): 1}
    episodes = [Episode(b, t, s, bool(ok), 4, "log") for (b, t), ok in rows.items() for s in range(60)]
    path = tmp_path_factory.mktemp("table") / "t.bin"
    costs = {"light": Cost(1.0, 1.0, "test"), "heavy": Cost(9.0, 2.0, "test")}
    path.write_bytes(table_bytes(fit_table(episodes, costs, None, Rule(0.05, 0.25))))
    return path


def test_a_task_runs_on_what_it_needs(spoken, table, tmp_path):
    ids = {t: np.array([text.tokenizer().encode(t).ids]) for t in (PUT, ODD)}  # six words each
    with vc.RoutedSession(spoken.path, table, tmp_path / "state") as routed:
        for instruction, backbone in ((PUT, "light"), (ODD, "heavy"), (PUT, "light")):
            decision = routed.begin(instruction)
            assert decision.backbone == backbone
            seen = {n: a for n, a in drawn(1).items() if n not in (TOKENS, MASK)}
            for n, a in seen.items():
                routed.session.write(n, a)
            routed.session.step()
            given = seen | {TOKENS: ids[instruction], MASK: ids[instruction] != 0}
            np.testing.assert_allclose(routed.session.pop(), original(backbone, given)[0, 0], atol=1e-5)
        for _ in range(90):
            routed.end(routed.begin(PUT).backbone == "heavy")  # light fails from now on
        assert routed.begin(PUT).backbone == "heavy"
    with vc.RoutedSession(spoken.path, table, tmp_path / "state") as routed:
        assert routed.begin(PUT).backbone == "heavy"  # remembered


def see(routed: vc.RoutedSession, seed: int = 1) -> None:
    for n, a in drawn(seed).items():
        if n not in (TOKENS, MASK):
            routed.session.write(n, a)


def test_a_routed_task_is_an_episode(spoken, table):
    """Nothing of the last one is executed or seen, whichever backbone it had; what is refused ends nothing."""
    with vc.RoutedSession(spoken.path, table) as routed:
        for instruction in (PUT, PUT, ODD, PUT):
            routed.begin(instruction)
            for call, status in ((routed.session.pop, "QUEUE_EMPTY"), (routed.session.step, "SOURCE_UNSET")):
                with pytest.raises(RuntimeFailure) as caught:
                    call()
                assert caught.value.status == status
            see(routed)
            routed.session.step()
            routed.session.pop()
        routed.session.step()
        left, before = routed.session.queue().remaining, routed.session.queue().chunks
        refused = "put " * 5000
        with pytest.raises(RuntimeFailure):
            routed.begin(refused)
        assert (routed.session.queue().remaining, routed.session.queue().chunks) == (left, before)
        with pytest.raises(RuntimeFailure, match="no task"):
            routed.end(True)
        routed.begin(PUT)
        routed.end(True)
        with pytest.raises(RuntimeFailure, match="no task"):
            routed.end(True)


class TwoReaders(nn.Module):
    """An instruction in two lengths, as two encoders take it."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.words, self.head = nn.Embedding(50, 16), nn.Linear(19, 8)

    def forward(self, long, short, state):
        read = self.words(long).mean(1) + self.words(short).mean(1)
        return {"action": self.head(torch.cat([read, state], -1)).reshape(1, 4, 2)}


def two_readers(seed: int) -> vc.Policy:
    reader = text.tokenizer().to_str()
    return vc.Policy("two_readers", TwoReaders(seed).eval(),
                     {"long": vc.Source("task"), "short": vc.Source("task"), "state": vc.Source("observation")},
                     {"long": torch.zeros(1, 6, dtype=torch.int64), "short": torch.zeros(1, 3, dtype=torch.int64),
                      "state": torch.zeros(1, 3)},
                     texts={name: vc.Text(reader, None, vc.Fit(pad=0)) for name in ("long", "short")})


def test_an_instruction_that_one_of_two_readers_refuses_is_read_by_neither(recipe, table, tmp_path):
    """Otherwise the task that goes on would go on with half of the next one's instruction."""
    both = vc.join({"light": two_readers(0), "heavy": two_readers(1)}, "two")
    with vc.RoutedSession(vc.build(both, recipe=recipe, out=tmp_path / "two.vlab").path, table) as routed:
        session = routed.session
        routed.begin("put the bowl")
        session.write("state", np.zeros((1, 3), np.float32))
        session.step()
        before = [session.read("long"), session.read("short"), session.chunk()]
        with pytest.raises(RuntimeFailure, match="too many tokens"):
            routed.begin("put the bowl on the plate")
        session.step()
        for was, now in zip(before, (session.read("long"), session.read("short"), session.chunk()), strict=True):
            np.testing.assert_array_equal(was, now)
        routed.begin("the plate")
        assert not np.array_equal(before[0], session.read("long"))


def test_a_table_of_other_backbones_or_a_bundle_without_text_is_refused(recipe, tmp_path, late_fusion_bundle, table):
    with pytest.raises(ConfigError, match="takes no text"):
        vc.RoutedSession(vc.build(joined(), recipe=recipe, out=tmp_path / "pair.vlab").path, table)
    with pytest.raises(ConfigError, match="not a backbone") as error:
        vc.RoutedSession(late_fusion_bundle.path, table)
    assert "a single policy" in error.value.why


def test_a_recording_wants_the_tables_order(spoken, tmp_path):
    """A recorded decision has numbers, whose names are the bundle's."""
    episodes = [Episode(b, PUT, s, True, 4, "log") for b in ("heavy", "light") for s in range(9)]
    path, costs = tmp_path / "t.bin", {"heavy": Cost(9.0, 2.0, "test"), "light": Cost(1.0, 1.0, "test")}
    path.write_bytes(table_bytes(fit_table(episodes, costs, None, Rule(0.05, 0.25))))
    with vc.RoutedSession(spoken.path, path) as routed:
        order = routed.router.backbones
    assert order == ("heavy", "light")
    with pytest.raises(ConfigError, match="another order"):
        vc.RoutedSession(spoken.path, path, record=tmp_path / "run.vlog")


@pytest.mark.parametrize("text", ["put the bowl\0 on the plate", "put \ud800", "", "?!", "a" * 513])
def test_a_text_that_cannot_be_routed_whole_is_refused(table, text):
    router = Router(table)
    with pytest.raises((ConfigError, RuntimeFailure)):
        router.decide(text)
    assert not router.drain()
    assert router.decide("поставь чашку").by in ("words", "nothing")


def test_a_forked_process_counts_no_outcomes_of_its_parent(spoken, table, tmp_path):
    """The state on disk is one process's: two would each write what the other does not know."""
    with vc.RoutedSession(spoken.path, table, tmp_path / "state") as routed:
        routed.begin(PUT)

        def work() -> None:
            for call in (lambda: routed.end(True), lambda: routed.begin(PUT), routed.router.drain, routed.router.info):
                with pytest.raises(RuntimeFailure, match="is of another process"):
                    call()
            routed.close()

        in_child(work)
        routed.end(True)
        assert len(routed.router.drain()) == 1
