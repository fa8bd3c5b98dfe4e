"""Several policies in one bundle: what they have in common is there once, and a session runs one of them at a time."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.policy import test_text as text
from tests.samples import policies
from vlacompile.cli.main import main
from vlacompile.phases.load_policy import parse_sources
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.stage_rows import backbone_rows
from vlart.bundle.plan.text import parse_plan, plan_text
from vlart.errors import ConfigError, RuntimeFailure, SourceError
from vlart.serve.policy_host import PolicyHost
from vlart.serve.tokenized_texts import own_instructions

TOKENS, MASK, STATE = "observation.language.tokens", "observation.language.attention_mask", "observation.state"
BASE = "observation.images.base"


class Wide(policies.LateFusion):
    """The same eyes, another way to read the instruction."""

    def __init__(self, eyes: nn.Module):
        super().__init__()
        self.language = nn.Embedding(50, 64)
        self.language_mix = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32))
        self.camera = eyes


def pair() -> dict[str, vc.Policy]:
    light = policies.late_fusion()
    torch.manual_seed(1)
    return {"light": light, "heavy": replace(light, name="wide", observe=Wide(light.observe.camera).eval())}


def joined(**more) -> vc.Policy:
    return vc.join(pair(), "pair", apart=(TOKENS,), **more)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "every.toml"
    path.write_text(policies.EVERY_STAGE, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def bundle(recipe, tmp_path_factory) -> vc.Bundle:
    return vc.build(joined(), recipe=recipe, out=tmp_path_factory.mktemp("pair") / "pair.vlab")


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = lambda: rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    return {TOKENS: rng.integers(0, 50, (1, 6)), MASK: np.array([[True] * 5 + [False]]), BASE: image(),
            "observation.images.wrist": image(), STATE: rng.standard_normal((1, 9), np.float32)}


def original(name: str, inputs: dict) -> np.ndarray:
    with torch.no_grad():
        return pair()[name].infer(**{n: torch.from_numpy(a) for n, a in inputs.items()})["action"].numpy()


def write(session, inputs: dict, *names: str) -> None:
    for n, array in inputs.items():
        for target in ([f"{b}.{n}" for b in names] if n == TOKENS else [n]):
            session.write(target, array)


def test_what_they_have_in_common_is_there_once(bundle):
    plan = bundle.plan
    serves = {s.name: plan.served_by(s) for s in plan.stages}
    assert [b.name for b in plan.backbones] == ["light", "heavy"]
    assert serves["vision.base"] == serves["vision.wrist"] == ("light", "heavy")
    assert serves["language.light"] == ("light",) and serves["language.heavy"] == ("heavy",)
    alone = [vc.build(p, out=bundle.path.parent / f"{n}.vlab") for n, p in pair().items()]
    assert bundle.plan.weights and sum(w.type.bytes for w in plan.weights) < sum(
        w.type.bytes for b in alone for w in b.plan.weights)
    kernel = pair()["light"].observe.camera[0].weight.numel() * 4
    assert [w.type.bytes for w in plan.weights].count(kernel) == 1  # of both cameras, for both


@pytest.mark.parametrize("name", ["light", "heavy"])
def test_one_is_run_and_gives_its_own_policys_actions(bundle, name):
    other = {"light": "heavy", "heavy": "light"}[name]
    with vc.Session(bundle.path) as session:
        session.select(name)
        for seed in range(3):
            inputs = drawn(seed)
            write(session, inputs, name)  # what the other one reads is never written
            session.step()
            want = original(name, inputs)
            np.testing.assert_allclose(session.read(f"{name}.action"), want, atol=1e-5)
            np.testing.assert_allclose(session.pop(), want[0, 0], atol=1e-5)
            assert np.abs(want - original(other, inputs)).max() > 1e-2  # the control
        runs = session.stats().runs()
        assert all(runs[s.name] == 0 for s in bundle.plan.stages if name not in bundle.plan.served_by(s))
        assert all(runs[s.name] == 3 for s in bundle.plan.stages if name in bundle.plan.served_by(s))
        with pytest.raises(RuntimeFailure) as error:
            session.read(f"{other}.action")
        assert error.value.status == "VALUE_UNSET"


def test_the_first_is_run_unless_another_is_selected(bundle):
    with vc.Session(bundle.path) as session:
        write(session, drawn(0), "light")
        session.step()
        np.testing.assert_allclose(session.pop(), original("light", drawn(0))[0, 0], atol=1e-5)


def test_going_over_and_back_computes_what_is_missing(bundle):
    first = drawn(0)
    with vc.Session(bundle.path) as session:
        write(session, first, "light", "heavy")
        session.step()
        session.pop()
        session.select("heavy")
        left = session.queue().remaining
        session.step()
        assert session.queue().remaining > left  # the queue kept its actions until then
        np.testing.assert_allclose(session.pop(), original("heavy", first)[0, 0], atol=1e-5)
        assert set(session.stats().runs().values()) == {1}  # the eyes' too
        session.select("light")
        session.step()
        assert set(session.stats().runs().values()) == {1}
        np.testing.assert_allclose(session.pop(), original("light", first)[0, 0], atol=1e-5)  # and not heavy's second
        session.select("heavy")
        session.write(STATE, drawn(1)[STATE])
        session.step()
        np.testing.assert_allclose(session.pop(), original("heavy", first | {STATE: drawn(1)[STATE]})[0, 0], atol=1e-5)


def test_a_source_of_the_other_one_is_missed_only_when_it_is_selected(bundle):
    with vc.Session(bundle.path) as session:
        write(session, drawn(0), "light")
        session.step()
        session.select("heavy")
        with pytest.raises(RuntimeFailure) as error:
            session.step()
        assert error.value.status == "SOURCE_UNSET" and f"heavy.{TOKENS}" in error.value.where


def test_all_of_them(bundle):
    with vc.Session(bundle.path) as session:
        session.select(None)
        write(session, drawn(0), "light", "heavy")
        session.step()
        for name in ("light", "heavy"):
            np.testing.assert_allclose(session.read(f"{name}.action"), original(name, drawn(0)), atol=1e-5)
        np.testing.assert_allclose(session.pop(), original("light", drawn(0))[0, 0], atol=1e-5)


def test_a_worker_runs_what_was_selected_when_it_was_asked(bundle):
    with contextlib.closing(vc.AsyncSession(bundle.path)) as session:
        write(session, drawn(0), "light", "heavy")
        session.request()
        session.select("heavy")  # for the next one
        session.answer()
        np.testing.assert_allclose(session.pop().action, original("light", drawn(0))[0, 0], atol=1e-5)
        session.write(STATE, drawn(1)[STATE])
        session.request()
        session.answer()
        want = original("heavy", drawn(0) | {STATE: drawn(1)[STATE]})
        np.testing.assert_allclose(session.pop().action, want[0, 0], atol=1e-5)


def test_selecting_beside_a_running_worker(bundle):
    """Under threads: every action is one backbone's or the other's for the one observation that there is."""
    want = [original(name, drawn(0))[0] for name in ("light", "heavy")]
    with vc.AsyncSession(bundle.path, safe="hold") as session:
        write(session, drawn(0), "light", "heavy")
        seen, ends = set(), time.monotonic() + 60
        for k in itertools.count():
            if seen == {0, 1} or time.monotonic() > ends:
                break
            session.select(("light", "heavy")[k % 2])
            session.request()
            try:
                action = session.pop().action
            except RuntimeFailure as error:  # nothing has come yet
                assert error.status == "QUEUE_EMPTY"
                continue
            apart = [np.abs(action - w).max(1).min() for w in want]
            assert min(apart) < 1e-5
            seen.add(int(np.argmin(apart)))
            threading.Event().wait(0.001)
    assert seen == {0, 1}


def test_inspect_dump_and_text_show_them(bundle, capsys):
    assert main(["inspect", str(bundle.path)]) == 0
    said = capsys.readouterr().out
    assert "Backbones" in said and "language.heavy" in said
    rows = {r["backbone"]: r for r in backbone_rows(bundle.plan)}
    assert rows["light"]["own_weight_bytes"] < rows["light"]["weight_bytes"]
    assert "vision.base" not in rows["light"]["own"]
    text = plan_text(bundle.plan)
    assert 'backbone "light" %' in text and parse_plan(text) == bundle.plan


@pytest.mark.parametrize("name", ["light", "heavy"])
def test_run_takes_one_by_name(bundle, capsys, name):
    assert main(["run", str(bundle.path), "--backbone", name, "--json"]) == 0
    assert f'"output": "{name}.action"' in capsys.readouterr().out
    assert main(["run", str(bundle.path), "--backbone", "middle"]) != 0
    assert "middle" in capsys.readouterr().err


def test_what_is_no_backbone_is_refused(bundle, late_fusion_bundle):
    with vc.Session(bundle.path) as session:
        with pytest.raises(RuntimeFailure, match="no backbone") as error:
            session.select("hevy")
        assert "heavy" in error.value.why
    with vc.Session(late_fusion_bundle.path) as session:
        with pytest.raises(RuntimeFailure) as error:
            session.select("light")
        assert "a single policy" in error.value.why
        session.select(None)


def wrong(bundle, tmp_path, change) -> str:
    plan = read_plan(bundle.path / "plan.bin")
    changed = change(plan)
    path = tmp_path / "wrong.vlab"
    path.mkdir()
    for file in bundle.path.rglob("*"):
        if file.is_file() and file.name != "plan.bin":
            (path / file.relative_to(bundle.path)).parent.mkdir(parents=True, exist_ok=True)
            (path / file.relative_to(bundle.path)).write_bytes(file.read_bytes())
    (path / "plan.bin").write_bytes(plan_bytes(changed))
    with pytest.raises(RuntimeFailure) as error:
        vc.Session(path)
    assert error.value.status == "CORRUPT"
    return error.value.where + error.value.why


@pytest.mark.parametrize(("change", "why"), [
    (lambda b: b[:1], "one backbone alone"), (lambda b: (b[0], replace(b[1], name="light")), "another one's"),
    (lambda b: (b[0], replace(b[1], value=b[0].value)), "another one's"), (lambda b: b[::-1], "not the action value"),
    (lambda b: (b[0], replace(b[1], value=0)), "no stage's")])
def test_a_plan_whose_backbones_make_no_sense_is_refused(bundle, tmp_path, change, why):
    assert why in wrong(bundle, tmp_path, lambda plan: replace(plan, backbones=change(plan.backbones)))


def test_beside_lanes_they_are_refused(tmp_path):
    path = tmp_path / "lanes.toml"
    path.write_text(policies.EVERY_STAGE + '[[lane]]\nname = "slow"\nsources = ["' + BASE + '"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="several backbones"):
        vc.build(joined(), recipe=str(path), out=tmp_path / "b.vlab")


def test_histories_go_on_whichever_is_run(tmp_path, recipe):
    """What is remembered is encoded for every observation, so that the other one finds it."""
    policy = policies.remember()
    other = replace(policy, observe=policies.remember(seed=5).observe)
    both = vc.join({"a": policy, "b": other}, "memory")
    built = vc.build(both, recipe=recipe, out=tmp_path / "b.vlab")
    rng = np.random.default_rng(0)
    frames = [{"image": rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8),
               "state": rng.standard_normal((1, 9), np.float32)} for _ in range(5)]
    tokens = rng.integers(0, 50, (1, 6))
    past = [frames[max(0, 4 - k)] for k in (2, 1, 0)]
    given = {n: torch.from_numpy(np.stack([f[n] for f in past], 1)) for n in ("image", "state")}
    with torch.no_grad():
        want = other.infer(tokens=torch.from_numpy(tokens), **given)["action"].numpy()
    with vc.Session(built.path) as session:
        session.write("tokens", tokens)
        for i, frame in enumerate(frames):
            session.select("ab"[i == 4])
            for n, a in frame.items():
                session.write(n, a)
            session.step()
        np.testing.assert_allclose(session.read("b.action"), want, atol=1e-5)


def test_loops_of_both_stay_loops(tmp_path, recipe):
    a, b = policies.flow(), policies.flow(seed=3)
    built = vc.build(vc.join({"a": a, "b": b}, "flows"), recipe=recipe, out=tmp_path / "f.vlab")
    loops = {s.name: built.plan.served_by(s) for s in built.plan.stages if s.iterations > 1}
    assert sorted(loops.values()) == [("a",), ("b",)]


def test_precision_minds_both_actions(tmp_path):
    """With the second backbone's layers in int8 its action moves, which an error of the first alone would not show."""
    path = tmp_path / "int8.toml"
    path.write_text(policies.EVERY_STAGE
                    + '[precision]\nmax_action_error = 10.0\n[[precision.rule]]\nlayers = "*heavy/*"\n'
                    'scheme = "int8"\n', encoding="utf-8")
    built = vc.build(joined(), recipe=str(path), out=tmp_path / "q.vlab")
    schemes = {s.name: {p.scheme for p in s.precisions} for s in built.plan.stages}
    assert any("int8" in v for n, v in schemes.items() if n.endswith("heavy") or "heavy." in n)
    quantised = {v.value: v.worst.max_abs for v in built.accepted.values if v.level == "policy"}
    assert quantised["heavy.action"] > quantised["light.action"]


@pytest.mark.parametrize(("change", "words"), [
    ({"execute": 3}, "execute"), ({"ensemble": 0.1}, "ensemble"),
    ({"outputs": ("action", "action2")}, "it has 2 outputs")])
def test_policies_that_are_driven_differently_are_not_joined(change, words):
    members = pair()
    with pytest.raises(SourceError) as error:
        vc.join(members | {"heavy": replace(members["heavy"], **change)})
    assert words in error.value.why


def test_an_input_that_means_two_things_is_told_apart():
    members = pair()
    other = members["heavy"]
    examples = dict(other.example_inputs) | {STATE: torch.randn(1, 8)}
    with pytest.raises(SourceError, match="differs between") as error:
        vc.join(members | {"heavy": replace(other, example_inputs=examples)})
    assert "apart" in error.value.fix
    with pytest.raises(SourceError, match="no input"):
        vc.join(members, apart=("observation.states",))
    with pytest.raises(SourceError, match="1 backbones"):
        vc.join({"light": members["light"]})
    assert set(vc.join(members).sources) == set(members["light"].sources)


def test_calibration_is_of_one_time():
    members, rows = pair(), tuple({n: torch.from_numpy(a) for n, a in drawn(k).items()} for k in range(3))
    both = {n: replace(p, calibration=rows) for n, p in members.items()}
    assert [set(r) for r in vc.join(both, apart=(TOKENS,)).calibration] == [set(joined().sources)] * 3
    with pytest.raises(SourceError, match="different numbers of recorded"):
        vc.join(both | {"heavy": replace(members["heavy"], calibration=rows[:2])})
    with pytest.raises(SourceError, match="differs from the others"):
        vc.join(both | {"heavy": replace(members["heavy"], calibration=rows[::-1])})


@pytest.mark.parametrize("texts", [["light=a:b"], ["a:b", "heavy=c:d"], ["light=a:b", "light=c:d"], ["=a:b", "x=c:d"]])
def test_sources_without_names_of_their_own_are_refused(texts):
    with pytest.raises(SourceError, match="names no backbone"):
        parse_sources(texts)


def test_several_sources_are_one_bundle_on_the_command_line(tmp_path, capsys):
    assert parse_sources(["a:b"]) == "a:b" and parse_sources(["x=a:b", "y=c:d"]) == {"x": "a:b", "y": "c:d"}
    out = tmp_path / "p.vlab"
    assert main(["build", "a=tests.samples.policies:late_fusion", "b=tests.samples.policies:late_fusion", "-o",
                 str(out)]) != 0
    assert "are the same value" in capsys.readouterr().err  # one policy twice is one policy
    assert not out.exists()


ODD = "put the plate on the bowl"


@pytest.fixture(scope="module")
def spoken(recipe, tmp_path_factory) -> vc.Bundle:
    members = {n: replace(p, texts={TOKENS: vc.Text(text.tokenizer().to_str(), MASK, vc.Fit(pad=0))})
               for n, p in pair().items()}
    return vc.build(vc.join(members, "spoken"), recipe=recipe, out=tmp_path_factory.mktemp("spoken") / "s.vlab")


def test_the_others_see_one_backbone(spoken, bundle, tmp_path, capsys):
    """Serving, profiles and reports are of the one that is asked for."""
    host = PolicyHost(spoken.path, backbone="heavy")
    try:
        assert host.described()["backbone"] == "heavy"
        words = own_instructions(host.bundle)(ODD)
        writes = {n: a for n, a in drawn(1).items() if n not in (TOKENS, MASK)} | words
        got = host.submit(host.connect(), writes).result(30).outputs["actions"]
        np.testing.assert_allclose(got, original("heavy", writes)[0], atol=1e-5)
    finally:
        host.stop()
    with pytest.raises(ConfigError, match="has no backbone"):
        PolicyHost(spoken.path, backbone="middle")
    apart = PolicyHost(bundle.path)  # with words of their own
    assert f"light.{TOKENS}" in apart.inputs and f"heavy.{TOKENS}" not in apart.inputs
    apart.stop()
    kept = tmp_path / "p.json"
    assert main(["profile", str(spoken.path), "--backbone", "heavy", "--measure", "--replans", "12", "--warm-up", "1",
                 "-o", str(kept)]) == 0
    stages = {n.removeprefix("stage ") for n in json.loads(kept.read_text())["series"] if n.startswith("stage ")}
    assert "language.heavy" in stages and "language.light" not in stages
    assert main(["report", str(spoken.path), "--backbone", "heavy", "--no-replay", "-o", str(tmp_path / "r.html")]) == 0
    capsys.readouterr()


def test_chunks_of_different_shapes_are_refused(tmp_path):
    def member(steps: int) -> vc.Policy:
        def observe(state):
            return {"action": state[:, None, :2].repeat(1, steps, 1)}

        return vc.Policy(f"of{steps}", observe, {"state": vc.Source("observation")}, {"state": torch.ones(1, 4)})

    with pytest.raises(SourceError, match="different shapes") as raised:
        vc.build(vc.join({"short": member(4), "long": member(8)}), out=tmp_path / "no.vlab")
    assert "short: [1, 4, 2]" in raised.value.why and raised.value.phase == "capture"
