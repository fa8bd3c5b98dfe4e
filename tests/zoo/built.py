"""A system of the zoo at tiny size: built once per module of tests, followed for some steps, compared with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

import vlacompile as vc
from tests.checkpoint_matrix import share_of_spread
from vlacompile.phases.phase import Phase, silent
from vlacompile.phases.read_inputs import Inputs, read_inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.pipeline import run
from vlacompile.zoo import catalogue
from vlacompile.zoo.names import PREFIX
from vlart.bundle.plan.plan import Stage
from vlart.bundle.plan.stage_rows import stage_rows

FP32 = 1e-4  # of the spread of each action dimension
CALIBRATION = 8  # observations, of which every fourth is held out


@dataclass(frozen=True)
class Built:
    """inputs, verified: of the build, for other precisions of the same stages."""

    policy: vc.Policy
    bundle: vc.Bundle
    inputs: Inputs
    verified: Verified

    def table(self) -> dict[str, tuple[set[str], int]]:
        """{stage: (the sources that it depends on, its iterations)}"""
        return {r["stage"]: (set(r["depends"]), r["iterations"]) for r in stage_rows(self.bundle.plan)}

    def stage(self, name: str) -> Stage:
        return next(s for s in self.bundle.plan.stages if s.name == name)


def build(name: str, folder: Path, recipe: str | None = None) -> Built:
    """name: as after `zoo:`, without a size. recipe: as of vlacompile.build."""
    policy = catalogue.load(f"{PREFIX}{name}@tiny")
    policy = replace(policy, calibration=observations(policy, CALIBRATION))
    inputs = read_inputs(policy, "host", recipe, folder / f"{name}.vlab", progress=silent)
    found = dict(run(inputs))
    return Built(policy, found[Phase.PUBLISH], inputs, found[Phase.VERIFY_STAGING])


def observations(policy: vc.Policy, count: int) -> tuple[dict[str, torch.Tensor], ...]:
    """As if they had been recorded."""
    draw = torch.Generator().manual_seed(100)
    live = [n for n, s in policy.sources.items() if s.update != "static"]
    return tuple({**policy.example_inputs, **{n: changed(policy, n, draw) for n in live}} for _ in range(count))


def operators(built: Built, stage: str) -> list[str]:
    """The kinds of operators of a stage's graph, one per operator."""
    model = onnx.load(built.bundle.path / "stages" / f"{stage}.onnx", load_external_data=False)
    return [n.op_type for n in model.graph.node]


def changed(policy: vc.Policy, name: str, draw: torch.Generator) -> torch.Tensor:
    """Another content for a source: another scene, numbers about the example's own, ids among the example's, a mask
    with another number of leading entries."""
    example = policy.example_inputs[name]
    if example.dtype == torch.bool:
        kept = int(torch.randint(1, int(example.sum()) + 1, (1,), generator=draw))
        return example & (example.cumsum(-1) <= kept)
    if example.dtype == torch.uint8:
        return _scene(example.shape, draw)
    if example.is_floating_point():
        return torch.randn(example.shape, generator=draw) * example.std(correction=0).clamp(min=0.1) + example.mean()
    return example.flatten()[torch.randint(0, example.numel(), example.shape, generator=draw)]


def _scene(shape: torch.Size, draw: torch.Generator) -> torch.Tensor:
    """Frames u8 [...,H,W,C] of coloured areas: features of mere noise would hardly differ from frame to frame."""
    *frames, height, width, channels = shape
    areas = torch.randint(0, 256, (*frames, 3, 3, channels), generator=draw, dtype=torch.uint8)
    rows, columns = (torch.arange(n) * 3 // n for n in (height, width))
    return areas[..., rows, :, :][..., columns, :].clone()


@dataclass
class _Robot:
    """What the policy's function gets, step by step: a history holds the newest observation last."""

    policy: vc.Policy
    inputs: dict[str, torch.Tensor]
    started: bool = False

    def write(self, session: vc.Session, new: dict[str, torch.Tensor]) -> None:
        moves = any(self.policy.sources[n].history > 1 for n in new)
        for name, source in ((n, s) for n, s in self.policy.sources.items() if s.update != "static"):
            value = new.get(name, self.inputs[name])
            if source.history == 1:
                self.inputs[name] = value
            elif moves:
                newest = value[:, -1:]
                window = self.inputs[name] if self.started else newest.expand_as(value)
                self.inputs[name] = torch.cat([window[:, 1:], newest], 1)
            if name in new or not self.started:
                sent = self.inputs[name] if source.history == 1 else self.inputs[name][:, -1]
                session.write(name, sent)
        self.started = True


def follow(built: Built, steps: int = 4, backbone: str | None = None,
           begins: tuple[int, ...] = ()) -> list[tuple[np.ndarray, np.ndarray]]:
    """The outputs of libvlart and of PyTorch, step by step. Every step changes other sources; on the way it is asserted
    that exactly the stages ran that depend on what changed, or on what a step takes from the one before. begins: steps
    before which another episode begins."""
    policy, draw = built.policy, torch.Generator().manual_seed(1)
    output = policy.backbones[backbone] if backbone else policy.outputs[0]
    live = [n for n, s in policy.sources.items() if s.update != "static"]
    robot, pairs, carried = _Robot(policy, dict(policy.example_inputs)), [], {}
    with vc.Session(built.bundle.path, threads=1) as session, torch.no_grad():
        if backbone:
            session.select(backbone)
        for step in range(steps):
            if step in begins:
                session.reset()
                robot.started, carried = False, {}
            names = live if step == 0 else [n for n in live if torch.rand(1, generator=draw) < 0.5] or live[:1]
            new, before = {n: changed(policy, n, draw) for n in names}, session.stats().runs()
            differ = {n for n, value in new.items() if step == 0 or not torch.equal(value, robot.inputs[n])}
            robot.write(session, new)
            session.step()
            _check_runs(built, before, session.stats().runs(), differ, step == 0)
            values = policy.infer(**robot.inputs, **carried)
            carried, want = policy.handed_on(values), values[output]
            pairs.append((np.array(session.read(output)), want.float().numpy()))
    return pairs


def _check_runs(built: Built, before: dict, after: dict, written: set[str], first: bool) -> None:
    """written: sources with another content than before; a task that is written again as it was makes nothing run."""
    ran = {name for name in after if after[name] > before.get(name, 0)}
    windows = {n for n, s in built.policy.sources.items() if s.history > 1}
    moved = written | windows if written & windows else written  # histories advance together, with what was seen last
    table, always = built.table(), built.bundle.plan.depends_on_carried().keys()
    for name in ran - always if not first else ():
        assert table[name][0] & moved, f"{name} ran, though nothing that it depends on was written"
    if not built.policy.backbones:
        idle = {n for n, (depends, _) in table.items() if depends & written or n in always} - ran
        assert not idle, f"{sorted(idle)} did not run"


def worst(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest difference over all steps, as a share of the spread of its action dimension; of one that was the same
    all the time (a gripper that stays open) the difference itself."""
    got, want = (np.concatenate([p[i].reshape(-1, p[i].shape[-1]) for p in pairs]) for i in (0, 1))
    moves = want.std(0) > 0
    still = np.abs(got - want)[:, ~moves].max(initial=0.0)
    return max(share_of_spread(got[:, moves], want[:, moves]) if moves.any() else 0.0, float(still))
