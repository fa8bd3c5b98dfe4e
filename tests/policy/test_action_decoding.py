"""From `Policy.decoder` and a recipe's [action] to popped actions: built, verified, shown, refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import vlacompile as vc
from vlacompile.cli.main import main
from vlacompile.compiler.assemble.assemble_action import action_of
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.staging.stages import Staged
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.phases.read_inputs import resolve
from vlacompile.policy import action_decoding as dec
from vlacompile.policy import sample_inputs as golden_frames
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import load_recipe
from vlart import vocabulary
from vlart.bundle.format import layout
from vlart.bundle.plan import action as pa
from vlart.bundle.plan.action import RateLimit
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.plan import Action, Plan, TensorType, Value, as_f32
from vlart.bundle.plan.text import parse_plan, plan_text
from vlart.errors import BundleError, ConfigError, ParityError, RuntimeFailure, SourceError
from vlart.verify.reference_actions import ActionReference

H, D = 5, 3
LOW, HIGH = (-1.0, 0.0, -4.0), (1.0, 0.5, 4.0)
EDGES = np.linspace(-1, 1, 256)


class Tokens(nn.Module):
    """Logits over 300 ids from a vector; the greedy ids are the output. `state` is not read."""

    def __init__(self, dtype: torch.dtype = torch.int64):
        super().__init__()
        self.head, self.dtype = nn.Linear(8, H * D * 300), dtype

    def forward(self, x, state):
        return {"tokens": self.head(x).reshape(1, H * D, 300).argmax(-1).to(self.dtype)}


def tokens_policy(dtype: torch.dtype = torch.int64, **fields) -> Policy:
    torch.manual_seed(0)
    steps = (dec.Lookup((dec.centres(EDGES),) * D, first=299, direction=-1),
             dec.from_range(LOW, HIGH, mask=(True, True, False)), dec.Delta("state", (1, None, 0)))
    return Policy("tokens", Tokens(dtype).eval(), {"x": Source("observation"), "state": Source("observation")},
                  {"x": torch.randn(1, 8), "state": torch.tensor([[0.25, -2.0]])},
                  **({"outputs": ("tokens",), "decoder": dec.Decoder(steps)} | fields))


def formula(ids: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Written anew: 255 centres from the end of the vocabulary, ranges where masked, joints relative to the state."""
    index = np.clip(300 - ids.reshape(H, D) - 1, 0, 254)
    x = (EDGES[index] + EDGES[index + 1]) / 2
    x = np.where([True, True, False], 0.5 * (x + 1) * (np.array(HIGH) - LOW) + LOW, x)
    return x + [state[0, 1], 0, state[0, 0]]


def chunk_policy(dims=(1, 6, 2), **fields) -> Policy:
    torch.manual_seed(0)
    head = nn.Linear(4, math.prod(dims)).eval()
    return Policy("chunk", lambda x: {"action": head(x).reshape(dims)}, {"x": Source("observation")},
                  {"x": torch.randn(1, 4)}, **fields)


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "recipe.toml"
        path.write_text(f'name = "r"\ndescription = "d"\n[action]\n{text}\n', encoding="utf-8")
        return str(path)
    return write


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_token_policy_gives_actions(tmp_path, dtype):
    policy = tokens_policy(dtype)
    bundle = vc.build(policy, out=tmp_path / "p.vlab")
    assert parse_plan((bundle.path / "plan.txt").read_text()) == bundle.plan
    report = bundle.accepted
    assert {v.level for v in report.values} == {"chunk", "action"}
    assert next(v for v in report.values if v.value == "tokens").worst.max_abs == 0
    with vc.Session(bundle.path) as session:
        session.write("x", policy.example_inputs["x"])
        with pytest.raises(RuntimeFailure, match="no content yet") as caught:
            session.step()
        assert caught.value.status == "SOURCE_UNSET" and '"state"' in caught.value.where
        for seed in range(3):
            state = torch.randn(1, 2, generator=torch.Generator().manual_seed(seed))
            session.write("state", state)
            session.step()
            ids = policy.infer(**policy.example_inputs)["tokens"].numpy()
            got = np.stack([session.pop() for _ in range(H)])
            np.testing.assert_allclose(got, formula(ids, state.numpy()), atol=2e-6)
        assert session.stats().runs() == {"x": 1}, "the state alone decodes anew and runs nothing"


def test_the_verifier_sees_a_wrong_action(tmp_path, monkeypatch):
    """Negative control of the replay: a reference that is one thousandth off."""
    vc.build(tokens_policy(), out=tmp_path / "p.vlab")
    right = ActionReference.decode
    monkeypatch.setattr(ActionReference, "decode", lambda self, *a: right(self, *a) + 1e-3)
    with pytest.raises(ParityError, match='"actions" differs from its NumPy reference'):
        vc.verify(tmp_path / "p.vlab").require()


def test_a_decoded_value_is_verified_in_every_consumption(tmp_path, recipe):
    for number, text in enumerate(('consume = "ensemble"\ndecay = 0.1', "execute = 2",
                                   'consume = "realtime"\ndelay = 2\nexecute = 3\nmax_guidance = 0')):
        bundle = vc.build(tokens_policy(), recipe=recipe(text), out=tmp_path / f"{number}.vlab")
        row = next(v for v in bundle.accepted.values if v.level == "action")
        assert row.passed and row.frames == 6 + golden_frames.EDGES


def test_refused_tokens_are_verified_as_refused(tmp_path):
    """Golden inputs are disturbed: where their tokens are no chunk, both sides must say so."""
    pieces = dec.Pieces(tuple((i % 7,) for i in range(150)), (H, D), outside="refuse")
    bundle = vc.build(tokens_policy(decoder=dec.Decoder((pieces,))), out=tmp_path / "p.vlab")
    rows = {v.value: v for v in bundle.accepted.values}
    assert rows["refused tokens"].passed and rows["tokens"].frames == 6 + golden_frames.EDGES
    with vc.Session(bundle.path) as session:
        for name, array in tokens_policy().example_inputs.items():
            session.write(name, array)
        with pytest.raises(RuntimeFailure) as caught:
            session.step()
        assert caught.value.status == "ACTION_NOT_DECODED" and "no row for it" in caught.value.why
        assert session.read("tokens").shape == (1, H * D)


class Guided(nn.Module):
    """One Euler step of two, pulled to the previous chunk where its weights say so."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, x, noise, previous, weights):
        sample = noise
        for t in (1.0, 0.5):
            v = self.net(sample) + x[:, None]
            error = (previous - (sample - t * v)) * weights[None, :, None]
            sample = sample - 0.5 * (v - error)
        return {"action": sample * 3 + 1, "sample": sample}


def guided_policy(**fields) -> Policy:
    torch.manual_seed(0)
    step = Source("step")
    return Policy("guided", Guided().eval(),
                  {"x": Source("observation"), "noise": step, "previous": Source("observation"), "weights": step},
                  {"x": torch.randn(1, 2), "noise": torch.randn(1, 6, 2), "previous": torch.randn(1, 6, 2),
                   "weights": torch.tensor([1.0, 1, 0.5, 0.25, 0, 0])},
                  **({"outputs": ("action", "sample"),
                      "guidance": dec.Guidance("previous", "weights", "sample")} | fields))


@pytest.mark.parametrize("rule", ["clip", "refuse"])
@pytest.mark.parametrize("consume", ['consume = "ensemble"\ndecay = 0.1', "execute = 3"])
def test_a_rate_limit_is_verified(tmp_path, recipe, rule, consume):
    """The golden frames are no motion, so that many actions are too far from the last one: both sides say which."""
    limits = f'max_step = [0.02, 0.0, 9.0]\nmax_velocity = [90.0, 0.2, 0.0]\ncontrol_hz = 10.0\nrate_rule = "{rule}"'
    bundle = vc.build(tokens_policy(), recipe=recipe(f"{consume}\n{limits}"), out=tmp_path / "p.vlab")
    assert bundle.plan.action.rate_limit == RateLimit(rule, as_f32((0.02, 0.02, 9.0)))
    assert parse_plan(plan_text(bundle.plan)) == bundle.plan
    row = next(v for v in bundle.accepted.values if v.level == "action")
    assert row.passed and row.frames > 0


def test_the_verifier_sees_a_limit_that_is_not_kept(tmp_path, recipe, monkeypatch):
    vc.build(tokens_policy(), recipe=recipe("max_step = [0.02, 0.02, 0.02]"), out=tmp_path / "p.vlab")
    monkeypatch.setattr(ActionReference, "limited", lambda self, action: action)
    with pytest.raises(ParityError, match='"actions" differs from its NumPy reference'):
        vc.verify(tmp_path / "p.vlab").require()


def test_the_last_chunk_guides_the_next(tmp_path, recipe):
    """The whole of real-time chunking: the runtime's previous chunk and weights against the original function, called
    with what was left of its own last sample."""
    policy = guided_policy()
    text = recipe('consume = "realtime"\ndelay = 1\nexecute = 2\nhorizon = 4')
    bundle = vc.build(policy, recipe=text, out=tmp_path / "p.vlab")
    rng = np.random.default_rng(0)
    last, queue, popped_of_last = None, [], 0
    with vc.Session(bundle.path) as session:
        for replan in range(12):
            x, noise = (rng.normal(size=s).astype(np.float32) for s in ((1, 2), (1, 6, 2)))
            session.write("x", x)
            left = np.zeros((0, 2)) if last is None else last[popped_of_last:]
            previous, weights = np.zeros((1, 6, 2), np.float32), np.zeros(6, np.float32)
            previous[0, : len(left)] = left
            end = min(4, len(left))
            for i in range(end):
                weights[i] = 1 if i < min(1, end) else 1 - (i - min(1, end) + 1) / (end - min(1, end) + 1)
            committed = 0 if last is None else 1
            for _ in range(committed):
                np.testing.assert_allclose(session.pop(), queue.pop(0), atol=1e-5)
            session.write("noise", noise)
            session.step()
            np.testing.assert_allclose(session.read("previous"), previous, atol=1e-6)
            np.testing.assert_allclose(session.read("weights"), weights, atol=1e-6)
            want = policy.infer(x=torch.from_numpy(x), noise=torch.from_numpy(noise),
                                previous=torch.from_numpy(previous), weights=torch.from_numpy(weights))
            np.testing.assert_allclose(session.read("action"), want["action"].detach(), atol=1e-5)
            last = want["sample"].detach().numpy()[0]
            queue = list(want["action"].detach().numpy()[0][committed:])
            popped_of_last = committed
            for _ in range(1 + replan % 3):
                np.testing.assert_allclose(session.pop(), queue.pop(0), atol=1e-5)
                popped_of_last += 1
            if replan:
                plain = policy.infer(x=torch.from_numpy(x), noise=torch.from_numpy(noise),
                                     previous=torch.zeros(1, 6, 2), weights=torch.zeros(6))["action"].detach()
                assert np.abs(plain.numpy() - want["action"].detach().numpy()).max() > 1e-3, "control: no guidance"


@pytest.fixture(scope="module")
def staged() -> dict[str, tuple[Policy, Staged]]:
    """Policies up to their stages: where decoder and recipe meet the outputs."""
    task = chunk_policy()
    policies = {"chunk": task, "tokens": tokens_policy(), "guided": guided_policy(),
                "task": Policy("chunk", task.observe, {"x": Source("task")}, task.example_inputs)}
    return {n: (p, stage(capture(p), load_target("host"), load_recipe(None)).staged) for n, p in policies.items()}


def action_for(policy_and_stages: tuple[Policy, Staged], recipe: str | None, **changed):
    policy, stages = policy_and_stages
    given = {"decoder": policy.decoder, "guidance": policy.guidance} | changed
    wanted = resolve(load_recipe(recipe), policy).action
    return action_of(stages, {n: i for i, n in enumerate(stages.types)}, wanted, lambda name, array: 0, **given)


@pytest.mark.parametrize("text,what", [
    ('consume = "queues"', 'action.consume = "queues"'),
    ("decay = 0.1", "action.decay is set"),
    ('consume = "ensemble"\ndelay = 1', "action.delay is set"),
    ('consume = "ensemble"\nexecute = 2', "action.execute = 2"),
    ('consume = "ensemble"\ndecay = -500', "action.decay = -500 is too far below 0"),
    ("max_guidance = 1.0", "action.max_guidance is set"),
    ('consume = "realtime"\ndelay = 1\nmax_guidance = -1.0', "action.max_guidance = -1"),
    ('consume = "realtime"\ndelay = 1\nmax_guidance = inf', "action.max_guidance = inf"),
    ('consume = "realtime"\nexecute = 3', "action.delay is missing"),
    ('consume = "realtime"\ndelay = -1', "action.delay = -1"),
    ('consume = "realtime"\ndelay = 1\nexecute = 6', "delay = 1 and execute = 6 do not fit 6 predicted steps"),
    ('consume = "realtime"\ndelay = 2\nexecute = 1', "delay = 2 and execute = 1 do not fit"),
    ('consume = "realtime"\ndelay = 4\nexecute = 4', "delay = 4 and execute = 4 do not fit"),
    ('consume = "realtime"\ndelay = 1\nexecute = 3\nhorizon = 7', "action.horizon = 7"),
    ('consume = "realtime"\ndelay = 1\nexecute = 3\nschedule = "linea"', 'action.schedule = "linea"'),
    ("max_step = [1.0]", "action.max_step has 1 numbers"),
    ("max_step = [1.0, -1.0]", "action.max_step or action.max_velocity is out of range"),
    ("max_velocity = [1.0, nan]\ncontrol_hz = 20.0", "action.max_step or action.max_velocity is out of range"),
    ("max_velocity = [1.0, 1.0]", "action.control_hz = 0"),
    ("max_step = [1.0, 1.0]\ncontrol_hz = 20.0", "action.control_hz = 20"),
    ("max_velocity = [1.0, 1.0]\ncontrol_hz = -1.0", "action.control_hz = -1"),
    ("max_step = [1.0]\nmax_velocity = [1.0, 1.0]\ncontrol_hz = 20.0", "differ in length"),
    ('max_step = [1.0, 1.0]\nrate_rule = "stop"', 'action.rate_rule = "stop"'),
    ('rate_rule = "refuse"', 'action.rate_rule = "refuse"'),
])
def test_a_consumption_that_does_not_fit_is_refused(staged, recipe, text, what):
    with pytest.raises(ConfigError) as caught:
        action_for(staged["chunk"], recipe(text))
    assert what in caught.value.what and caught.value.fix and caught.value.why


def test_consumption_needs_what_it_is_made_of(staged, recipe):
    realtime = recipe('consume = "realtime"\ndelay = 1\nexecute = 3')
    with pytest.raises(ConfigError, match="depend on no observation"):
        action_for(staged["task"], realtime)
    with pytest.raises(ConfigError, match="continues its previous chunk"):
        action_for(staged["guided"], None)
    for guidance, what in ((("noise", "x", "sample"), "do not match"),
                           (("previous", "weights", "velocity"), '"velocity" is not a value')):
        with pytest.raises(SourceError, match=what):
            action_for(staged["guided"], realtime, guidance=dec.Guidance(*guidance))
    with pytest.raises(ConfigError, match="no action chunk"):
        action_for(staged["tokens"], realtime, decoder=None)


def test_a_refused_recipe_leaves_no_bundle(tmp_path, recipe):
    """The whole way once: the error of `build`."""
    unfit = recipe('consume = "realtime"\ndelay = 4\nmax_guidance = 0')
    with pytest.raises(ConfigError, match="delay = 4 and execute = 2 do not fit 6 predicted steps"):
        vc.build(chunk_policy(), recipe=unfit, out=tmp_path / "p.vlab")
    assert not (tmp_path / "p.vlab").exists()


def test_a_bound_of_guidance_that_the_policy_itself_has_is_refused(tmp_path, recipe):
    bounded = recipe('consume = "realtime"\ndelay = 1\nmax_guidance = 5.0')
    with pytest.raises(ConfigError, match="max_guidance = 5 bounds nothing"):
        vc.build(guided_policy(), recipe=bounded, out=tmp_path / "p.vlab")


def test_real_time_chunks_overlap_by_ten_or_by_half(staged, recipe):
    found = action_for(staged["chunk"], recipe('consume = "realtime"\ndelay = 1'))
    assert (found.execute_steps, found.consume.horizon) == (3, 3)
    torch.manual_seed(0)
    long = chunk_policy((1, 50, 2), execute=50)
    stages = stage(capture(long), load_target("host"), load_recipe(None)).staged
    for delay, execute in ((4, 40), (12, 38)):
        found = action_for((long, stages), recipe(f'consume = "realtime"\ndelay = {delay}'))
        assert (found.execute_steps, found.consume.horizon) == (execute, 50 - execute)


@pytest.mark.parametrize("steps,what", [
    ((dec.from_range(LOW, HIGH),), "does not read this output"),
    ((dec.Lookup(((0.0, 1.0),) * 4),), "does not read this output"),
    ((dec.Lookup(((0.0, 1.0),) * D), dec.inverse_dct(4)), "Basis does not fit the chunk"),
    ((dec.Lookup(((0.0, 1.0),) * D), dec.Affine((1.0,), (0.0,))), "Affine does not fit the chunk"),
    ((dec.Lookup(((0.0, 1.0),) * D), dec.Delta("state", (0, 1))), "Delta does not fit the chunk"),
    ((dec.Lookup(((0.0, 1.0),) * D), dec.Delta("stat", (0, 1, None))), 'no source is called "stat"'),
    ((dec.Lookup(((0.0, 1.0),) * D), dec.Delta("state", (0, 2, None))), "does not have the elements"),
])
def test_a_decoder_that_does_not_fit_is_refused(staged, steps, what):
    with pytest.raises(SourceError, match=what):
        action_for(staged["tokens"], None, decoder=dec.Decoder(steps))


@pytest.mark.parametrize("make,what", [
    (lambda: dec.Lookup(((0.0,),), direction=0), "direction = 0"),
    (lambda: dec.Lookup(((),)), "empty"),
    (lambda: dec.Lookup(((math.nan,),)), "not finite"),
    (lambda: dec.Lookup(((0.0,),), outside="skip"), '"skip" is not known'),
    (lambda: dec.Pieces(((256,),), (1, 1), symbols="utf8"), "not a sequence of symbols"),
    (lambda: dec.Pieces(((1,),), (1, 1), length="long"), '"long" is not known'),
    (lambda: dec.Pieces(((1,),), (0, 1)), "out of range"),
    (lambda: dec.Basis(((1.0, 2.0),)), "not square"),
    (lambda: dec.Affine((1.0,), (math.inf,)), "not finite"),
    (lambda: dec.Decoder(()), "not the first step"),
    (lambda: dec.Decoder((dec.inverse_dct(2), dec.Lookup(((0.0,),)))), "not the first step"),
    (lambda: dec.byte_pieces("{"), "cannot be read"),
    (lambda: dec.byte_pieces('{"model": {"type": "Unigram", "vocab": {}}}'), "not byte-level"),
])
def test_a_decoder_that_is_none_is_refused(make, what):
    with pytest.raises(SourceError, match=what):
        make()


def test_a_float_chunk_is_decoded_on_the_host(tmp_path):
    policy = chunk_policy(decoder=dec.Decoder((dec.from_mean_std((1, 2), (3, 4), epsilon=1e-6),)))
    bundle = vc.build(policy, out=tmp_path / "p.vlab")
    with vc.Session(bundle.path) as session:
        session.write("x", policy.example_inputs["x"])
        session.step()
        want = session.read("action")[0] * [3 + 1e-6, 4 + 1e-6] + [1, 2]
        np.testing.assert_allclose(np.stack([session.pop() for _ in range(6)]), want, atol=1e-5)


def test_conventions():
    """The numbers of the tables, against the formulas."""
    edges = dec.lower_edges(-2.0, 3.0, 256)
    assert edges[0] == -2 and edges[255] == 3 and abs(edges[7] - (7 / 255 * 5 - 2)) < 1e-12
    assert dec.centres((0.0, 1.0, 4.0)) == (0.5, 2.5) and dec.classes(3) == (0.0, 1.0, 2.0)
    affine = dec.from_range((1.0, 5.0), (3.0, 9.0), mask=(True, False), epsilon=1e-8)
    assert affine.scale == ((2 + 1e-8) / 2, 1.0) and affine.offset[1] == 0 and abs(affine.offset[0] - 2) < 1e-7
    basis = np.array(dec.inverse_dct(7, 10.0).matrix) * 10
    np.testing.assert_allclose(basis @ basis.T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(basis @ np.eye(7)[0], np.full(7, 1 / math.sqrt(7)), atol=1e-12)
    spike = np.array([sum((math.sqrt(1 / 7) if k == 0 else math.sqrt(2 / 7)) * math.cos(math.pi * (2 * n + 1) * k / 14)
                          * (k == 3) for k in range(7)) for n in range(7)])
    np.testing.assert_allclose(basis @ np.eye(7)[3], spike, atol=1e-12)


def test_inspect_shows_it(tmp_path, recipe, capsys):
    vc.build(tokens_policy(), recipe=recipe('consume = "ensemble"\ndecay = 0.05'), out=tmp_path / "p.vlab")
    assert main(["inspect", str(tmp_path / "p.vlab")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "decoded by a lookup table of up to 255 entries per dimension, scale and offset, plus state" in shown
    assert "the mean of all predictions for a tick, weighted exp(-0.05 i), oldest first" in shown
    vc.build(guided_policy(), recipe=recipe('consume = "realtime"\ndelay = 1\nexecute = 3'), out=tmp_path / "q.vlab")
    assert main(["inspect", str(tmp_path / "q.vlab")]) == 0
    assert "replan after 3 actions, 1 more during inference" in " ".join(capsys.readouterr().out.split())


INTEGERS = st.integers(0, 2**31)
FLOATS = st.floats(-1e6, 1e6, width=32)
STEPS = st.one_of(
    st.integers(1, 4).flatmap(lambda n: st.builds(
        pa.Lookup, INTEGERS, st.sampled_from((1, -1)), st.sampled_from(("clip", "zero", "refuse")),
        st.tuples(*[INTEGERS] * n), st.tuples(*[INTEGERS] * n))),
    st.builds(pa.Pieces, INTEGERS, st.sampled_from((1, -1)), st.sampled_from(("refuse", "skip")), INTEGERS,
              st.sampled_from(sorted(vocabulary.SYMBOLS)), st.integers(-2**40, 2**40), st.none() | INTEGERS,
              st.sampled_from(sorted(vocabulary.LENGTHS))),
    st.builds(pa.Basis, INTEGERS),
    st.integers(1, 4).flatmap(lambda n: st.builds(pa.Affine, st.tuples(*[FLOATS] * n), st.tuples(*[FLOATS] * n))),
    st.integers(1, 4).flatmap(lambda n: st.builds(pa.Delta, INTEGERS, st.tuples(*[st.none() | INTEGERS] * n))))
CONSUMPTIONS = st.one_of(
    st.builds(pa.Ensemble, FLOATS),
    st.builds(pa.Realtime, INTEGERS, st.sampled_from(sorted(vocabulary.SCHEDULES)), INTEGERS,
              *[st.none() | INTEGERS] * 3))


def action_plan(action: Action) -> Plan:
    return Plan("p", "host", "r", 64, (), (), (Value("a", TensorType("f32", (1, 4, 2))),), (), (), action)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(STEPS, CONSUMPTIONS)
def test_lines_round_trip(step, consume):
    plan = action_plan(Action(0, 4, 1, 2, 0, (), (), (step,), consume))
    assert [line.split()[0] for line in plan_text(plan).splitlines()[-2:]] == ["decode", "consume"]
    assert parse_plan(plan_text(plan)).action == plan.action


def test_plans_without_these_sections_are_read(tmp_path, monkeypatch):
    """Format 1.0 had neither: a queue."""
    plan = Plan("p", "host", "r", 64, (), (), (Value("a", TensorType("f32", (1, 4, 2))),), (), (), Action(0, 4, 1, 2))
    monkeypatch.setattr(layout, "FORMAT_MINOR", 0)
    monkeypatch.setattr(layout, "PLAN_SECTIONS", tuple(s for s in layout.PLAN_SECTIONS
                                                       if s not in ("decodes", "consumption")))
    assert read_plan(tmp_path / "plan.bin", plan_bytes(plan)) == plan and plan.action.consume == pa.Queue()


@pytest.mark.parametrize("line", ["lookup", "lookup @1 direction=1", "nothing @1", "basis 3", "basis @1 more=2",
                                  "affine scale=a offset=1", "delta @1 element=0", "pieces @1 direction=1 outside=clap "
                                  "first=0 symbols=utf8 offset=0 stop=none length=exact"])
def test_a_line_that_is_no_step_is_refused(line):
    with pytest.raises(BundleError, match="not a line of a plan") as caught:
        parse_plan(plan_text(action_plan(Action(0, 4, 1, 2))) + f"  decode {line}\n")
    assert "line 5" in caught.value.where


def test_the_recipe_says_what_it_resolves_to(recipe):
    action = load_recipe(recipe('consume = "ensemble"')).action
    assert (action.consume, action.decay, action.execute) == ("ensemble", None, None)
