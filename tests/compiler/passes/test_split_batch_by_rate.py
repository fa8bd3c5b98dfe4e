"""Encoders that are batched over cameras and frames are taken apart, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlacompile as vc
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.history import append, frames_of
from vlacompile.compiler.emit.onnx.translatable import decompositions, is_translated
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import execute, op_name
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.drop_identities import DropIdentities
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.compiler.passes.lower_splits import LowerSplits
from vlacompile.compiler.passes.pass_list import graph_passes
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.compiler.passes.split_batch_by_rate import SplitBatchByRate
from vlacompile.policy.policy import Policy, Source

OBSERVED = Source("observation")


def split(policy: Policy, **options):
    """The program before and after, with the same inputs the same function."""
    program = EliminateCommonSubexpressions().run(LowerSplits().run(DropIdentities().run(
        capture(policy)).program).program).program
    result = SplitBatchByRate(**options).run(program)
    got = execute(result.program, frames_of(policy.sources, policy.example_inputs))[0]["action"]
    with torch.no_grad():
        want = policy.infer(**policy.example_inputs)["action"]
    assert got.shape == want.shape and (got - want).abs().max() <= 1e-5
    return result


def count(program, op: str) -> int:
    return sum(op_name(n.target) == op for n in program.graph.nodes if n.op == "call_function")


class Tail(torch.nn.Module):
    """An encoder over two stacked images [2,3,8,8] -> [2,4,4,4], and something behind it."""

    def __init__(self, tail):
        super().__init__()
        self.camera, self.tail = torch.nn.Conv2d(3, 4, 2, 2), tail
        self.linear, self.norm = torch.nn.Linear(4, 5), torch.nn.LayerNorm(4)
        self.token = torch.nn.Parameter(torch.randn(2, 4))

    def forward(self, a, b):
        return {"action": self.tail(self, self.camera(torch.stack([a, b]).flatten(0, 1)))}


TAILS = {
    "pointwise": lambda m, x: torch.tanh(x * 2.0 + 1.0),
    "two operands": lambda m, x: torch.relu(x) * torch.sigmoid(x),
    "a constant of all rows": lambda m, x: x + torch.arange(4.0)[:, None, None],
    "a constant per row": lambda m, x: x.flatten(2).mean(-1) + m.token,
    "batch norm": lambda m, x: F.batch_norm(x, torch.ones(4), torch.ones(4), training=False),
    "group norm": lambda m, x: F.group_norm(x, 2),
    "layer norm": lambda m, x: m.norm(x.permute(0, 2, 3, 1)),
    "pools": lambda m, x: F.avg_pool2d(F.max_pool2d(x, 2), 2).flatten(1),
    "adaptive pool": lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    "interpolate": lambda m, x: F.interpolate(x, (6, 6), mode="bilinear"),
    "pad": lambda m, x: F.pad(x, (1, 1, 0, 1)),
    "linear over tokens": lambda m, x: m.linear(x.flatten(2).transpose(1, 2)),
    "softmax of each row": lambda m, x: torch.softmax(x.reshape(-1, 16), -1).view(2, 4, 16),
    "matmul": lambda m, x: x.flatten(2) @ torch.ones(16, 3),
    "matmul of two": lambda m, x: x @ x.transpose(-1, -2),
    "attention": lambda m, x: F.scaled_dot_product_attention(x, x * 2.0, x + 1.0),
    "sum": lambda m, x: x.sum((1, 2)) + x.amax((2, 3), keepdim=True)[:, :, 0].mean(1),
    "chunk": lambda m, x: torch.cat([*x.chunk(2, 1)][::-1], 1),
    "slice and select": lambda m, x: x[:, 1:3, 0] + x[:, :2, :, 1],
    "merge with dimensions behind": lambda m, x: x.reshape(8, 16).unsqueeze(0).squeeze(0),
    "to one row": lambda m, x: torch.relu(x.reshape(1, -1)),
    "taken apart and joined": lambda m, x: torch.cat([torch.tanh(x[1:]), x[:1] * x.unbind(0)[1]]),
    "roll over rows": lambda m, x: torch.roll(x, 1, 0),
    "every second": lambda m, x: x.flatten(0, 1)[::2],
    "in another order": lambda m, x: x.flatten(0, 1)[torch.tensor([5, 1, 2, 0])],
    "flipped": lambda m, x: x.flip(0) + x.flip(1),
    "expand": lambda m, x: x.unsqueeze(1).expand(2, 3, 4, 4, 4),
    "concatenate along another": lambda m, x: torch.cat([x, torch.relu(x)], 1),
}


@pytest.mark.parametrize("tail", TAILS)
def test_ops_that_act_on_rows(tail):
    inputs = {"a": torch.randn(1, 3, 8, 8), "b": torch.randn(1, 3, 8, 8)}
    result = split(Policy("tail", Tail(TAILS[tail]).eval(), dict.fromkeys(inputs, OBSERVED), inputs))
    assert result.changed and count(result.program, "conv2d") == 2
    last = result.program.output_nodes()[0]
    assert op_name(last.target) == "cat" and len(last.args[0]) == 2, "the parts meet behind the last op"


MIXING = {
    "mean over rows": lambda m, x: x.mean(0, keepdim=True),
    "softmax over rows": lambda m, x: torch.softmax(x, 0),
    "rows times rows": lambda m, x: x.flatten(1) @ x.flatten(1).T,
    "transposed into features": lambda m, x: x.flatten(1).T.reshape(-1, 4),
    "sorted": lambda m, x: x.sort(0)[0],
    "normalised over rows": lambda m, x: F.layer_norm(x, (2, 4, 4, 4)),
    "mixed by a view": lambda m, x: x.flatten().view(4, -1).mean(0, keepdim=True),
}


@pytest.mark.parametrize("tail", MIXING)
def test_ops_that_mix_rows_read_the_whole(tail):
    inputs = {"a": torch.randn(1, 3, 8, 8), "b": torch.randn(1, 3, 8, 8)}
    result = split(Policy("mixing", Tail(MIXING[tail]).eval(), dict.fromkeys(inputs, OBSERVED), inputs))
    assert count(result.program, "conv2d") == 2
    assert op_name(result.program.output_nodes()[0].target) != "cat"


def test_parts_of_one_source_stay_together():
    """Two crops of one camera are one batch, also beside another camera."""
    model = torch.nn.Conv2d(3, 4, 2, 2).eval()
    inputs = {"a": torch.randn(1, 3, 8, 8), "b": torch.randn(1, 3, 8, 8)}

    def one(a, b):
        return {"action": model(torch.cat([a, a.flip(-1)])) + b.mean()}

    def two(a, b):
        return {"action": model(torch.cat([a, a.flip(-1), b]))}

    assert not split(Policy("one", one, dict.fromkeys(inputs, OBSERVED), inputs)).changed
    assert count(split(Policy("two", two, dict.fromkeys(inputs, OBSERVED), inputs)).program, "conv2d") == 2


def test_a_batch_that_shares_the_reading_of_weights_stays():
    model = torch.nn.Linear(64, 64).eval()
    inputs = {"a": torch.randn(1, 64), "b": torch.randn(1, 64)}
    policy = Policy("rows", lambda a, b: {"action": model(torch.cat([a, b]))}, dict.fromkeys(inputs, OBSERVED), inputs)
    result = split(policy)
    assert not result.changed and "a part uses a weight 0.98 times" in result.notes[0]
    assert split(policy, least_uses=0.5).changed


def test_a_batch_inside_a_loop_stays():
    """Classifier-free guidance: both rows change in every step."""
    model = torch.nn.Conv1d(4, 4, 3, padding=1).eval()

    def observe(state, noise):
        for _ in range(2):
            noise = model(torch.cat([noise, noise * state])).mean(0, keepdim=True)
        return {"action": noise}

    inputs = {"state": torch.randn(1, 4, 1), "noise": torch.randn(1, 4, 32)}
    assert not split(Policy("cfg", observe, {"state": OBSERVED, "noise": Source("step")}, inputs)).changed


def test_frames_and_cameras_at_once():
    """(batch frames cameras) images: four encoders, each of one frame of one camera."""
    result = split(policies.two_cameras())
    assert count(result.program, "conv2d") == 8
    assert len([n for n in result.notes if "parts" in n]) == 3  # the history of each camera, and the cameras


class Attending(torch.nn.Module):
    """PyTorch's own attention, which moves the batch behind the tokens and takes it together with the heads, over the
    patches of a frame and a token that all frames share, or each has of its own."""

    def __init__(self, own: bool):
        super().__init__()
        self.patches, self.own = torch.nn.Conv2d(3, 8, 2, 2), own
        self.token = torch.nn.Parameter(torch.randn(3 if own else 1, 1, 8))
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, frames):
        x = self.patches(frames[0]).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(3, -1, -1), x], 1)
        return {"action": torch.relu(self.attention(x, x, x, need_weights=False)[0]).mean(1)[None].sum(1)}


@pytest.mark.parametrize("own", [False, True], ids=["a token of all", "a token of each"])
def test_frames_behind_pytorchs_attention_are_told_apart(own):
    """With a token of its own, an earlier frame is not what the newest was."""
    inputs = {"frames": torch.randn(1, 3, 3, 8, 8)}
    policy = Policy("frames", Attending(own).eval(), {"frames": Source("observation", history=3)}, inputs)
    program, _ = run_passes(capture(policy), (*graph_passes(is_translated, decompositions), DelayFrames()))
    assert count(program, "scaled_dot_product_attention") == (3 if own else 1)


class Modulated(torch.nn.Module):
    """A convolution, a modulation of its result by another history, and a convolution behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)
        self.film = torch.nn.Linear(5, 4)

    def forward(self, frames, text):
        x = self.first(frames[0]) * self.film(text[0])[..., None, None]
        return {"action": self.second(x).mean((2, 3))[None].sum(1)}


@pytest.mark.parametrize("update", ["task", "observation"])
def test_two_histories_that_meet_are_taken_apart_together(update):
    """What is behind the meeting is work of both: alone, the rows of the text would not be worth it."""
    inputs = {"frames": torch.randn(1, 3, 3, 8, 8), "text": torch.randn(1, 3, 5)}
    sources = {"frames": Source("observation", history=3), "text": Source(update, history=3)}
    assert count(split(Policy("modulated", Modulated(), sources, inputs)).program, "conv2d") == 6


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("take", [lambda x: x.unbind(0), lambda x: [x[0], x[1]]], ids=["unbind", "select"])
def test_a_camera_is_read_from_a_batch_of_cameras(take, frames):
    """Encoders of their own behind a common stack: every encoder depends on its camera alone."""
    encoders = torch.nn.ModuleList([torch.nn.Conv2d(3, 4, 2, 2) for _ in range(2)]).eval()

    def observe(a, b):
        images = torch.stack([a, b], 2).permute(2, 0, 1, 3, 4, 5).flatten(1, 2) / 2.0  # cameras (b frames) ...
        return {"action": torch.cat([e(x) for e, x in zip(encoders, take(images), strict=True)])}

    inputs = {"a": torch.randn(1, frames, 3, 8, 8), "b": torch.randn(1, frames, 3, 8, 8)}
    source = Source("observation", history=frames)
    if frames == 1:
        policy = Policy("one", observe, dict.fromkeys(inputs, OBSERVED), inputs)
    else:
        policy = Policy("two", observe, dict.fromkeys(inputs, source), inputs)
    program = split(policy).program
    deps = dependencies(program)
    encoded = [deps[n] for n in program.graph.nodes if op_name(n.target) == "conv2d"]
    assert len(encoded) == 2 * frames and all(len(d) == 1 for d in encoded)


@pytest.fixture(scope="module")
def one_frame(tmp_path_factory, every_stage):
    policy = policies.two_cameras(frames=1)
    return policy, vc.build(policy, recipe=str(every_stage), out=tmp_path_factory.mktemp("cameras") / "a.vlab")


def test_every_camera_has_a_stage_and_runs_alone(one_frame):
    policy, bundle = one_frame
    names = [s.name for s in bundle.plan.stages]
    assert {"vision.base", "vision.wrist"} <= set(names)
    inputs = dict(policy.example_inputs)
    with vc.Session(bundle.path) as session:
        for name, tensor in inputs.items():
            session.write(name, tensor)
        session.step()
        for camera, other in (("base", "wrist"), ("wrist", "base")):
            before = session.stats().runs()
            inputs[camera] = policies.picture()
            session.write(camera, inputs[camera])
            session.step()
            after = session.stats().runs()
            assert after[f"vision.{camera}"] == before[f"vision.{camera}"] + 1
            assert after[f"vision.{other}"] == before[f"vision.{other}"]
            with torch.no_grad():
                want = policy.infer(**inputs)["action"].numpy()
            assert np.abs(session.read("action") - want).max() <= 1e-5


def test_a_frame_is_kept_with_the_task_that_it_was_seen_under(tmp_path, every_stage):
    """A history of a source that changes per task: older frames are not encoded again for another task."""
    model = Modulated()
    policy = Policy("modulated", model, {"frames": Source("observation", history=3), "text": Source("task", history=3)},
                    {"frames": torch.randn(1, 3, 3, 8, 8), "text": torch.randn(1, 3, 5)})
    bundle = vc.build(policy, recipe=str(every_stage), out=tmp_path / "a.vlab")
    alone = next(s.name for s in bundle.plan.stages if [bundle.plan.values[v].name for v in s.depends] == ["text"])
    torch.manual_seed(3)
    seen, text = None, torch.randn(1, 5)
    with vc.Session(bundle.path) as session:
        for step in range(6):
            new = {"frames": torch.randn(1, 3, 8, 8)}
            if step in (0, 4):
                text = new["text"] = torch.randn(1, 5)
            for name, tensor in new.items():
                session.write(name, tensor)
            session.step()
            seen = {n: append((seen or {}).get(n), t, 3) for n, t in (new | {"text": text}).items()}
            with torch.no_grad():
                want = policy.infer(**seen)["action"].numpy()
            assert np.abs(session.read("action") - want).max() <= 1e-5
        assert session.stats().runs()[alone] == 2


def test_only_the_newest_frame_of_every_camera_is_encoded(tmp_path, every_stage):
    policy = policies.two_cameras()
    bundle = vc.build(policy, recipe=str(every_stage), out=tmp_path / "a.vlab")
    stages = {s.name: s for s in bundle.plan.stages}
    work = sum(s.flops for n, s in stages.items() if n.startswith("vision."))
    images = torch.zeros(1, 3, 32, 32)
    with torch.no_grad(), torch.utils.flop_counter.FlopCounterMode(display=False) as one:
        policy.observe.camera(images)
    assert 2 * one.get_total_flops() <= work <= 2.1 * one.get_total_flops()
    torch.manual_seed(5)
    stacked = {}
    with vc.Session(bundle.path) as session:
        for _ in range(5):
            inputs = {"base": policies.picture(), "wrist": policies.picture(), "state": torch.randn(1, 9)}
            stacked = {n: append(stacked.get(n), t, 2) for n, t in inputs.items()}
            for name, tensor in inputs.items():
                session.write(name, tensor)
            session.step()
            with torch.no_grad():
                want = policy.infer(**stacked)["action"].numpy()
            assert np.abs(session.read("action") - want).max() <= 1e-5
        assert {session.stats().runs()[n] for n in ("vision.base", "vision.wrist")} == {5}
