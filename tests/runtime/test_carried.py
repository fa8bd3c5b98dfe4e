"""What a step takes from the one before: random sequences of writes, steps, refused steps and ends of episodes give
what the same function gives in a loop of Python."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples.carrying import ROWS, WIDTH, Reference, carrying
from vlart.errors import RuntimeFailure

MOST = 50.0
RECIPE = f"""name = "carrying"
description = "actions within bounds, so that a step can fail when everything is computed"
[action]
low = [{-MOST}, {-MOST}, {-MOST}]
high = [{MOST}, {MOST}, {MOST}]
[stages]
min_flops = 0
"""
SEQUENCES, CALLS = 60, 30
WORDS = ["x"] * 3 + ["step"] * 8 + ["tokens", "reset", "late", "far", "invalidate"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    folder = tmp_path_factory.mktemp("carried")
    (folder / "r.toml").write_text(RECIPE)
    return vc.build(carrying(), recipe=str(folder / "r.toml"), out=folder / "c.vlab")


def drawn(rng: random.Random, name: str) -> np.ndarray:
    if name == "tokens":
        return np.array([[rng.randrange(5), rng.randrange(5)]], np.int64)
    return np.array([[rng.uniform(-2, 2) for _ in range(WIDTH)]], np.float32)


def play(session: vc.Session, rng: random.Random, reference: Reference) -> float:
    """The largest error of a value over one random sequence."""
    written = {"tokens": drawn(rng, "tokens"), "x": drawn(rng, "x")}
    session.reset()
    reference.reset()
    worst, seen = 0.0, set()

    def write(name: str, array: np.ndarray) -> None:
        session.write(name, array)
        written[name] = array
        seen.add(name)

    for name, array in written.items():
        write(name, array)
    for _ in range(rng.randrange(CALLS)):
        word = rng.choice(WORDS)
        if word == "reset":
            session.reset()
            reference.reset()
            seen.discard("x")
        elif word == "invalidate":  # everything is computed again, of the same state
            session.invalidate()
            reference.told = None if reference.task_ else reference.told
        elif word == "far" and "x" in seen:  # a step whose action is refused
            before = written["x"]
            write("x", np.full((1, WIDTH), 1e6, np.float32))
            with pytest.raises(RuntimeFailure):
                session.step()
            write("x", before)
        elif word in ("step", "late") and "x" in seen:
            try:
                session.step(1 if word == "late" else None)
            except RuntimeFailure as failure:  # stopped between two stages
                assert word == "late" and failure.status == "DEADLINE_MISSED"
                continue
            tokens, x = (torch.from_numpy(written[n]) for n in ("tokens", "x"))
            found = reference.step(tokens, x)
            reference.take(tokens, x, found)
            for name, want in found.items():
                error = np.abs(session.read(name).astype(np.float64) - want.numpy().astype(np.float64)).max()
                worst = max(worst, float(error))
        elif word in written:
            write(word, drawn(rng, word))
    return worst


def worst_of(bundle: vc.Bundle, reference: Reference) -> float:
    rng = random.Random(0)
    with vc.Session(bundle.path, threads=1) as session:
        return max(play(session, rng, reference) for _ in range(SEQUENCES))


def test_random_sequences_are_those_of_a_loop_in_python(bundle):
    assert worst_of(bundle, Reference()) < 1e-4


@pytest.mark.parametrize("wrong", [{"reset": False}, {"task": False}])
def test_what_does_not_end_is_seen(bundle, wrong):
    assert worst_of(bundle, Reference(**wrong)) > 1e-2


def test_the_plan_and_its_text_say_what_is_carried(bundle):
    names = [v.name for v in bundle.plan.values]
    said = {names[c.value]: (names[c.next], c.until, c.initial is None) for c in bundle.plan.carried}
    assert said == {
        "hidden": ("hidden.next", "episode", False), "cell": ("cell.next", "episode", True),
        "ring": ("ring.next", "episode", True), "count": ("count.next", "episode", True),
        "previous": ("action", "episode", True), "last": ("last.next", "episode", True),
        "since": ("since.next", "task", False), "mood": ("mood.next", "task", True),
        "mood.begun": ("mood.begun.next", "task", True)}
    assert not {names[c.value] for c in bundle.plan.carried} & set(bundle.plan.source_names())
    language = next(s for s in bundle.plan.stages if s.name == "language")
    assert language.name not in bundle.plan.depends_on_carried(), "what depends on the instruction alone stays cached"


def test_the_golden_frames_are_steps_of_two_episodes_and_are_replayed_so(bundle):
    from vlart.verify.frames import golden_frames

    frames = golden_frames(bundle.path)
    counts = [int(f.expects["count.next"].array[0]) for f in frames]
    assert counts == [*range(1, 9), 1, 2, 1, 1, 1, 1], "the last four are edge cases"
    assert [f.begins for f in frames] == [count == 1 for count in counts]
    assert vc.verify(bundle.path).require().steps == 8


def test_a_step_that_fails_leaves_what_was_carried_as_it_was(bundle):
    with vc.Session(bundle.path, threads=1) as session:
        session.write("tokens", np.array([[1, 2]], np.int64))
        session.write("x", np.ones((1, WIDTH), np.float32))
        for _ in range(3):
            session.step()
        kept = {n: session.read(n) for n in ("ring.next", "hidden.next", "count.next", "action")}
        session.write("x", np.full((1, WIDTH), 1e6, np.float32))
        with pytest.raises(RuntimeFailure) as failed:
            session.step()
        assert failed.value.status == "ACTION_OUT_OF_RANGE"
        for name, array in kept.items():
            np.testing.assert_array_equal(session.read(name), array)
        session.write("x", np.ones((1, WIDTH), np.float32))
        session.step()
        assert session.read("count.next") == 4
        assert (session.read("ring.next") != kept["ring.next"]).any(-1).sum() == 1, "one row of the ring was written"


def test_a_carried_value_is_not_written(bundle):
    with vc.Session(bundle.path, threads=1) as session, pytest.raises(Exception, match="hidden"):
        session.write("hidden", np.zeros((1, WIDTH), np.float32))


def test_stages_at_the_same_time_and_asynchronously_give_the_same(bundle):
    x = [drawn(random.Random(i), "x") for i in range(6)]
    tokens = np.array([[1, 2]], np.int64)

    def actions(**how) -> list[np.ndarray]:
        with vc.Session(bundle.path, threads=1, **how) as session:
            session.write("tokens", tokens)
            found = []
            for each in x:
                session.write("x", each)
                session.step()
                found.append(session.read("action"))
            return found

    alone = actions()
    for one, other in zip(alone, actions(parallel=2), strict=True):
        np.testing.assert_array_equal(one, other)
    with vc.AsyncSession(bundle.path, safe="zero") as control:
        for episode in range(2):  # the second begins as the first did
            control.begin({"x": x[0], "tokens": tokens})
            np.testing.assert_allclose(control.pop().action, alone[0][0, 0], atol=1e-5, err_msg=f"episode {episode}")


def test_a_backbone_that_missed_a_step_begins_anew(tmp_path):
    joined = vc.join({"one": carrying("one"), "other": carrying("other")})
    bundle = vc.build(joined, out=tmp_path / "j.vlab")
    assert {c.until for c in bundle.plan.carried} == {"episode", "task"}
    for stage in bundle.plan.stages:
        if stage.name in bundle.plan.depends_on_carried():
            assert len(bundle.plan.served_by(stage)) == 1, stage.name
    with vc.Session(bundle.path, threads=1) as session:
        session.write("tokens", np.array([[1, 2]], np.int64))
        session.write("x", np.ones((1, WIDTH), np.float32))
        counts = []
        for name in ("one", "one", "other", "one", "other", "other"):
            session.select(name)
            session.step()
            counts.append(int(session.read(f"{name}.count.next")[0]))
    assert counts == [1, 2, 1, 1, 1, 2]


def test_the_ring_has_room_for_its_rows(bundle):
    with vc.Session(bundle.path, threads=1) as session:
        session.write("tokens", np.array([[1, 2]], np.int64))
        rows = []
        for k in range(2 * ROWS + 1):
            session.write("x", np.full((1, WIDTH), k, np.float32))
            session.step()
            rows.append(session.read("ring.next")[0])
            for age in range(min(k + 1, ROWS)):
                np.testing.assert_array_equal(rows[k][(k - age) % ROWS], rows[k - age][(k - age) % ROWS])
