"""Converts a policy to fp16: rewrites its stages, compares them with FP32, and keeps nodes in FP32 until limits hold.

Owns the loop around `scan`, `find_kept_fp32` and `to_fp16`, and its report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.fx import Node

from vlacompile.compiler.precision.fp16.attention_masks import mask_values, masks
from vlacompile.compiler.precision.fp16.error_attribution import ErrorShare, attribute_error
from vlacompile.compiler.precision.fp16.keep_fp32 import KeepRules, KeptFp32, find_kept_fp32
from vlacompile.compiler.precision.fp16.op_kinds import MASKED, is_f32, moves, rounds_to_int8
from vlacompile.compiler.precision.fp16.range_scan import scan
from vlacompile.compiler.precision.fp16.rewrite import Conversion, conversion, to_fp16, with_f32_sums
from vlacompile.compiler.staging.choose_solver import action_error
from vlacompile.compiler.staging.run_stages import StageRunner, Values
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlart.errors import PrecisionError

Inputs = Mapping[str, torch.Tensor]
AIM = 0.9  # share of a limit that repairs aim at: lower keeps more in FP32 than needed, higher takes more rounds


@dataclass(frozen=True)
class Fp16Limits:
    """stage: largest relative L2 error of a stage's outputs, from FP32 inputs, over all observations. quantised: the
    same for a stage that rounds activations to 8 bits, relative to that stage in FP32: an fp16 rounding may move a
    number to the next of 255 steps, an error of the size that the 8 bits themselves were allowed to cause. action:
    largest action error (`choose_solver.action_error`) with all stages in fp16. rounds: how often nodes may be kept and
    the stages run again."""

    stage: float = 1e-2
    quantised: float = 3e-2
    action: float = 1e-2
    rounds: int = 10
    rules: KeepRules = field(default_factory=KeepRules)

    def of(self, stage: StageGraph) -> float:
        return self.quantised if any(rounds_to_int8(n) for n in stage.graph.nodes) else self.stage


@dataclass(frozen=True)
class Fp16Stage:
    """kept_fp32: {node: KeptFp32} of nodes that stay FP32. of: number of nodes that could be fp16. before: bytes of
    constants in FP32. error: relative L2 error of the outputs, from FP32 inputs."""

    name: str
    kept_fp32: Mapping[str, KeptFp32]
    made: Conversion
    of: int
    before: int
    error: float

    def lines(self) -> list[str]:
        """For a report: the stage, then one line per reason with one node as an example."""
        lines = [f"{self.name}: {self.made.nodes} of {self.of} nodes in fp16, weights {_size(self.before)} -> "
                 f"{_size(self.made.weights)}, error {self.error:.2g}"]
        count = Counter(p.kind for p in self.kept_fp32.values())
        for kind, n in count.most_common():
            name, reason = next((name, p) for name, p in self.kept_fp32.items() if p.kind == kind)
            lines.append(f"  FP32, {kind}: {n} ({name}: {reason.why})")
        if self.made.twice:
            lines.append(f"  in both dtypes: {', '.join(self.made.twice)}")
        return lines


@dataclass(frozen=True)
class Fp16Policy:
    """staged: with converted stages. repaired: number of nodes that the check kept in FP32."""

    staged: Staged
    stages: tuple[Fp16Stage, ...]
    action_error: float
    limits: Fp16Limits
    repaired: int

    def lines(self) -> list[str]:
        lines = [line for s in self.stages for line in s.lines()]
        return [*lines, f"action error {self.action_error:.2g} of the spread (limit {self.limits.action:g}); "
                f"{self.repaired} nodes kept in FP32 by the check"]


def convert_to_fp16(staged: Staged, observations: Sequence[Inputs], limits: Fp16Limits = Fp16Limits(),
          phase: Callable[[str], None] = lambda name: None,
          keep: Mapping[str, Mapping[str, KeptFp32]] | None = None) -> Fp16Policy:
    """The stages in fp16, within `limits` on `observations` (`choose_solver.calibration`). keep: {stage: nodes that
    stay FP32 in any case}.

    Raises PrecisionError, with the best result reached, if `limits.rounds` rounds of repair are not enough.
    """
    phase("scan the ranges of all values")
    ranges = scan(staged, observations, limits.rules.margin)
    check = _Check(staged, observations)
    repair = _Repair(staged, observations)
    extra: dict[str, dict[str, KeptFp32]] = {s.name: dict((keep or {}).get(s.name, {})) for s in staged.stages}
    given = sum(len(e) for e in extra.values())
    allowed = {s.name: limits.of(s) for s in staged.stages}
    best, best_errors = math.inf, {}
    for round_ in range(limits.rounds + 1):
        phase("check fp16 against FP32" + (f", repair {round_}" if round_ else ""))
        kept_fp32 = find_kept_fp32(staged, ranges, limits.rules, extra)
        stages = _converted(staged, kept_fp32)
        errors, action = check.measure(stages, kept_fp32)
        if action <= limits.action and all(e <= allowed[n] for n, e in errors.items()):
            repaired = sum(len(e) for e in extra.values()) - given
            return _result(staged, stages, kept_fp32, errors, action, limits, repaired)
        if action <= best:
            best, best_errors = action, errors
        shares = {n: (AIM * allowed[n] / e) ** 2 for n, e in errors.items() if not e <= allowed[n]}
        shares = shares or check.share_to_keep(stages, action, AIM * limits.action)
        kept = [repair.keep_worst(n, kept_fp32[n], extra[n], share, errors[n]) for n, share in shares.items()]
        if not any(kept):
            break
    worst = max(best_errors, key=lambda n: best_errors[n] / allowed[n])
    raise PrecisionError(
        "the policy cannot be converted to fp16 within the allowed error",
        where=f'stage "{worst}"',
        why=f"best reached: action error {best:.3g} (limit {limits.action:g}), stage error {best_errors[worst]:.3g} "
            f"(limit {allowed[worst]:g}); the check kept {sum(len(e) for e in extra.values()) - given} nodes in FP32",
        fix="allow a larger error or more rounds of repair, or leave the policy in FP32")


def _converted(staged: Staged, kept_fp32: Mapping[str, Mapping[str, KeptFp32]]) -> tuple[StageGraph, ...]:
    values = mask_values(staged)
    return tuple(to_fp16(s, kept_fp32[s.name], masks(s, values)) for s in staged.stages)


class _Repair:
    """Keeps the nodes in FP32 that cause most of a stage's error."""

    def __init__(self, staged: Staged, observations: Sequence[Inputs]):
        self.staged, self.observations = staged, observations
        self.sources: dict[str, dict[str, ErrorShare]] = {}  # error shares of the stages that needed repair

    def keep_worst(self, name: str, kept_fp32: Mapping[str, KeptFp32], extra: dict[str, KeptFp32], keep: float,
                   error: float) -> bool:
        """Keeps nodes in FP32 until the others cause at most the share `keep` of the squared error. A result is stored
        in FP32 only if its readers are FP32 as well, so they are kept with it. False: no node was left to keep."""
        stage = next(s for s in self.staged.stages if s.name == name)
        if name not in self.sources:
            masked = masks(stage, mask_values(self.staged))
            self.sources[name] = attribute_error(self.staged, stage, self.observations, masked)
        sources = self.sources[name]
        nodes = {n.name: n for n in stage.graph.nodes if n.name in sources}
        readers = {n: frozenset(u.name for u in _readers(node)) for n, node in nodes.items()}
        kept = {n for n in nodes if n in kept_fp32 or nodes[n].op == "placeholder"}

        def left_by(n: str) -> float:
            stored = n not in kept or not readers[n] <= kept
            return (0.0 if n in kept else sources[n].weights) + (sources[n].result if stored else 0.0)

        whole, before = sum(left_by(n) for n in nodes), len(kept)
        for n in sorted(nodes, key=lambda n: -left_by(n)):
            now = {m for m in (n, *readers[n]) if m in nodes} - kept
            for m in now:
                extra[m] = KeptFp32("error", self._why(name, n, m, left_by(n) / (whole or 1.0), error))
            kept |= now
            if now and whole and sum(left_by(m) for m in nodes) <= keep * whole:
                break
        return len(kept) > before

    def _why(self, stage: str, source: str, node: str, share: float, error: float) -> str:
        how = "its weights and result cause" if node == source else f"reads {source}, which causes"
        return f"{how} {share:.0%} of the error of the stage ({error:.2g})"


def _readers(node: Node) -> list[Node]:
    """Nodes that compute with the elements of a node's result, also after moves."""
    found: list[Node] = []
    for user in node.users:
        found += _readers(user) if moves(user) else [user] if user.op == "call_function" and is_f32(user) else []
    return found


class _Check:
    """FP32 values of every observation, computed once, and the distance of converted stages from them."""

    def __init__(self, staged: Staged, observations: Sequence[Inputs]):
        self.staged, self.observations = staged, observations
        self.masks = mask_values(staged)
        runner = StageRunner(staged)
        kept = {p.value for s in staged.stages for p in s.outputs}
        self.want: list[Values] = []
        for inputs in observations:
            values = runner.run(inputs)
            self.want.append({n: t for n, t in values.items() if n in kept})
        self.action = staged.program.action_in
        self.measured: dict[str, tuple[frozenset[str], float]] = {}

    def measure(self, stages: Sequence[StageGraph], kept_fp32: Mapping[str, Mapping[str, KeptFp32]]) \
            -> tuple[dict[str, float], float]:
        """({stage: relative L2 error from FP32 inputs}, end-to-end action error)."""
        runner = StageRunner(replace(self.staged, stages=tuple(with_f32_sums(s) for s in stages)))
        for s in stages:
            key = frozenset(kept_fp32[s.name])
            if s.name not in self.measured or self.measured[s.name][0] != key:
                self.measured[s.name] = key, self._stage_error(runner, s)
        errors = {s.name: self.measured[s.name][1] for s in stages}
        got = [self.action(runner.run(inputs)) for inputs in self.observations]
        return errors, self._action_error(got)

    def share_to_keep(self, stages: Sequence[StageGraph], action: float, aim: float) -> dict[str, float]:
        """{the stage that causes the largest action error when converted alone: the share of its squared error at which
        the action error would fall from `action` to `aim` if errors were independent, at least 1/16}."""
        cost = {}
        for tried in stages:
            mixed = tuple(with_f32_sums(tried) if s.name == tried.name else s for s in self.staged.stages)
            runner = StageRunner(replace(self.staged, stages=mixed))
            cost[tried.name] = self._action_error([self.action(runner.run(inputs)) for inputs in self.observations])
        worst = max(cost, key=cost.__getitem__)
        if not math.isfinite(action) or not cost[worst]:
            return {worst: 0.0}
        return {worst: max(1.0 - (action ** 2 - aim ** 2) / cost[worst] ** 2, 1.0 / 16)}

    def _action_error(self, got: list[torch.Tensor]) -> float:
        error = action_error(got, [self.action(values) for values in self.want])
        return math.inf if math.isnan(error) else error

    def _stage_error(self, runner: StageRunner, stage: StageGraph) -> float:
        outputs = [p.value for p in stage.outputs]
        off, size = dict.fromkeys(outputs, 0.0), dict.fromkeys(outputs, 0.0)
        for inputs, want in zip(self.observations, self.want, strict=True):
            got = runner.run(inputs, known={n: t for n, t in want.items() if n not in outputs})
            for name in outputs:
                a, b = (self._comparable(name, t) for t in (got[name], want[name]))
                off[name] += float((a - b).square().sum())
                size[name] += float(b.square().sum())
        relative = [math.sqrt(off[n] / size[n]) if size[n] else (math.inf if off[n] else 0.0) for n in outputs]
        return math.inf if any(math.isnan(r) for r in relative) else max(relative)

    def _comparable(self, name: str, value: torch.Tensor) -> torch.Tensor:
        value = value.double()
        return value.clamp(min=MASKED / 2) if name in self.masks else value


def _result(staged: Staged, stages: tuple[StageGraph, ...], kept_fp32: Mapping[str, Mapping[str, KeptFp32]],
            errors: Mapping[str, float], action: float, limits: Fp16Limits, repaired: int) -> Fp16Policy:
    rows = tuple(
        Fp16Stage(s.name, kept_fp32[s.name], conversion(h),
                  of=sum(n.op == "call_function" and is_f32(n) for n in s.graph.nodes),
                  before=sum(t.numel() * t.element_size() for t in s.constants.values()), error=errors[s.name])
        for s, h in zip(staged.stages, stages, strict=True))
    return Fp16Policy(replace(staged, stages=stages), rows, action, limits, repaired)


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB"
