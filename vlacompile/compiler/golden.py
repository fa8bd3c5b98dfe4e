"""Golden frames: inputs, the outputs of the original function, and PyTorch's values between the stages.

Owns the check, before anything is emitted, that the stages and the original function agree. Must not know engines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node

from vlacompile.compiler.behind_steps import LARGER, LARGER_IN_HALF, behind_steps
from vlacompile.compiler.capture.buffer_state import KEEP_NOTHING
from vlacompile.compiler.capture.history import append, frames_of, newest_of
from vlacompile.compiler.graph.carried import end_lifetimes
from vlacompile.compiler.graph.ops import is_step
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.legalise_types import coarsest
from vlacompile.compiler.staging.known_instructions import SpokenText
from vlacompile.compiler.staging.perturbed_runs import (
    PERTURBED_RUNS,
    frame_values,
    perturbed,
    perturbed_results,
)
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged
from vlacompile.policy.action_decoding import Lookup, Pieces
from vlacompile.policy.policy import Policy, as_taken
from vlacompile.policy.sample_inputs import edge_inputs, golden_inputs, of_all_lengths, spoken_in_turn
from vlacompile.recipe.recipe import VerifyRecipe
from vlart.errors import CaptureError, ParityError, RuntimeFailure
from vlart.verify.frames import Expected, Frame
from vlart.verify.metrics import Comparison, Limit, Metrics, examine
from vlart.verify.tolerances import (
    CHANCE,
    Scale,
    Seen,
    Tolerance,
    beside_steps,
    columns_of,
    tolerance,
)
from vlart.vocabulary import NOT_ENDED, dtype_name

FIX_OF_A_LOOP = ("let every iteration do the same with other numbers, read from tensors by the index, and let the "
                 "state alone leave a loop of vlacompile.iterate; where that is so, report it with this policy")
MEASURED = 3  # frames on which the effect of f32 rounding is measured
NEAR = 0.25  # share of a limit above which an error is examined
NOISE = 4.0  # errors up to this multiple of the effect of f32 rounding are attributed to rounding
WHOLE = 2.0  # times the largest change of an integer that was seen, others are possible
STEPS = 8  # golden frames of an episode in which values are carried from step to step
DRAWS = 4  # attempts to draw golden inputs that are well-conditioned


def golden(policy: Policy, staged: Staged, written: Program | None, recipe: VerifyRecipe,
           spoken: tuple[SpokenText, ...] = (),
           traced: Program | None = None, recorded: bool = False) -> tuple[list[Frame], dict[str, Metrics]]:
    """(golden frames, {output: distance of the staged graph from the original function}).

    A frame has inputs (for a history the newest observation), what the original function returns for them and the
    observations before, and PyTorch's value of everything between stages. written: the graph to compare with the
    original function, if a loop was given fewer evaluations; None: the staged one. traced: the program as traced.
    recorded: take the inputs from the policy's calibration set. If the result of a frame is decided by f32 rounding
    alone, all inputs are drawn again. Raises ParityError if the functions differ."""
    recorder = _Recorder(policy, staged, written, traced, recorded)
    for seed in range(recipe.seed, recipe.seed + DRAWS):
        try:
            return recorder.record(recipe.frames, spoken, seed, picky=True)
        except _IllConditioned:
            continue
    return recorder.record(recipe.frames, spoken, recipe.seed, picky=False)


class _IllConditioned(Exception):
    """The error of a golden frame is explained by f32 rounding, and so large that an engine, which sums in another
    order, could exceed the limits."""


class _Recorder:
    """values_of: {node of the staged program: name of the value}. coarse: the least precise dtype in which the policy
    computes, if the stages compute in another; then the policy's outputs are only reproduced to that precision.
    digits: of the outputs in 16 bits, which the stages round to them too. rounded: of the policy's outputs, what
    rounding in its own dtypes changes. moved: of frames of edges, all values with rounding drawn anew. signs: of the
    rounding errors that are tried there."""

    def __init__(self, policy: Policy, staged: Staged, written: Program | None, traced: Program | None,
                 recorded: bool):
        self.policy, self.staged, self.written = policy, staged, written
        self.outputs = policy.returned
        self.recorded = [newest_of(dict(policy.sources), c) for c in policy.calibration] if recorded else []
        self.values_of = {node: name for name, node in staged.origin.items()}
        self.coarse = None if traced is None or coarsest(traced) == "f32" else coarsest(traced)
        self.digits = _digits(traced) if self.coarse else {}
        self.traced = traced if self.coarse is not None and not traced.iterations else None
        self.shortened = traced is not None and bool(traced.iterations)
        self.runner = StageRunner(staged)
        self.looks_back = bool(staged.delays or policy.carried)
        # where nothing steps, the opposite errors move an output as far as the errors do
        self.signs = (1.0, -1.0) if any(is_step(n) for s in staged.stages for n in s.graph.nodes) else (1.0,)

    def record(self, count: int, spoken: tuple[SpokenText, ...], seed: int,
               picky: bool) -> tuple[list[Frame], dict[str, Metrics]]:
        self.runs: list[_Run] = []
        self.last: tuple[Mapping[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})  # inputs and values of a frame
        self.rounded: dict[str, list[Seen]] = {}
        self.moved: dict[str, Mapping[str, torch.Tensor] | None] = {}
        self._begin()
        sources = dict(self.policy.sources)
        newest = newest_of(sources, self.policy.example_inputs)
        longest = max((s.history for s in sources.values()), default=1)
        count = max(count, longest + 2, STEPS + 2 if self.policy.carried else 0)
        buckets = self.policy.buckets
        if buckets is not None:  # a text of every length, whatever else changes
            count = max(count, len(sources) + 3 + len(buckets.lengths))
        drawn = golden_inputs(sources, newest, count, seed, self.recorded)
        if buckets is not None and not self.recorded:
            drawn = of_all_lengths(drawn, buckets)
        texts, begins = [s.writes for s in spoken], False
        for i, (label, inputs) in enumerate(spoken_in_turn(drawn, texts)):
            inputs = {n: self._exactly(n, t) for n, t in inputs.items()}
            begins = begins or self._begins_episode(i)
            if begins:
                self._begin()
            self._end_lifetimes(inputs)
            try:
                original = self._original(inputs)
            except RuntimeFailure as reason:  # a replan fails there, and a frame has what one gives
                if reason.status != NOT_ENDED or (label == drawn[-1][0] and not self.runs):
                    raise
            else:
                self._run(label, inputs, original, begins=begins)
                begins = False
        scales = self._scales()
        last = {n: torch.from_numpy(a) for n, a in self.runs[-1].frame.writes.items()} if spoken else {}
        said = {n: last[n] for n in (texts[0] if texts else ())}
        for label, candidates in edge_inputs(sources, newest):
            if self.policy.carried:
                self._begin()
            inputs, original = self._first_valid([{**c, **said} for c in candidates])
            if inputs is None:
                continue
            moved = [self._rounded_anew(inputs, longest > 1 or bool(self.policy.carried), sign) for sign in self.signs]
            if not any(self._decided_by_last_bits(inputs, original, m, scales) for m in moved):
                self._run(label, inputs, original, edge=True, begins=bool(self.policy.carried))
                self.moved[label] = moved[0]
        return self._checked(scales, picky)

    def _begin(self) -> None:
        """Of an episode."""
        self.seen: dict[str, torch.Tensor] = {}
        self.past: dict[str, torch.Tensor] = {}
        self.past_as_written: dict[str, torch.Tensor] = {}
        self.carried: dict[str, torch.Tensor] = {}

    def _end_lifetimes(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """What is carried until a task ends, where the inputs are of another one than those of the frame before."""
        before = {n: torch.from_numpy(a) for n, a in self.runs[-1].frame.writes.items()} if self.runs else {}
        needed = {n for s in self.staged.stages for n in s.sources}
        for past in (self.past, self.past_as_written, self.carried):
            end_lifetimes(self.staged.program.sources, past, before, inputs, needed)

    def _begins_episode(self, i: int) -> bool:
        """Of a policy that carries values from step to step: a long episode, then another one; and every frame where a
        step may be refused for its tokens, after which PyTorch would go on and a robot does not."""
        if not self.policy.carried:
            return False
        steps = self.policy.decoder.steps if self.policy.decoder else ()
        return i in (0, STEPS) or any(isinstance(s, (Lookup, Pieces)) for s in steps)

    def _run(self, label: str, inputs: dict[str, torch.Tensor], original: Mapping[str, torch.Tensor],
             edge: bool = False, begins: bool = False) -> None:
        """Runs the stages and the program that has to equal the policy on the inputs of a frame."""
        self.seen |= self._window(inputs)
        outputs, between = self._staged(inputs)
        proved = outputs if self.written is None else execute(self.written, inputs, past=self.past_as_written)[0]
        written = _written(self.policy, inputs)
        self._as_traced(label, inputs, original)
        computed = {name: tensor.detach().contiguous().numpy() for name, tensor in between.items()}
        self.carried = self.policy.handed_on(original)
        exact = self.outputs if self.written is None and self.coarse is None else ()
        values = {n: original[n].numpy() if n in exact else a for n, a in computed.items()}
        self.runs.append(_Run(Frame(label, written, edge=edge, begins=begins),
                              {n: t.numpy() for n, t in original.items()},
                              {n: t.detach().numpy() for n, t in proved.items()}, computed, values))

    def _staged(self, inputs: dict[str, torch.Tensor]) -> tuple[Mapping[str, torch.Tensor], dict[str, torch.Tensor]]:
        """(outputs, values between stages) of the staged graph. Where it does not look back, stages whose sources are
        those of the frame before are not run again."""
        if self.looks_back:
            outputs, kept = execute(self.staged.program, inputs, keep=self.values_of, past=self.past)
            return outputs, {self.values_of[node]: tensor for node, tensor in kept.items()}
        before, values = self.last
        values = self.runner.run(inputs, {}, known=self.runner.still_valid(before, inputs, values) if values else {})
        self.last = inputs, values
        return {n: values[n] for n in self.outputs}, {n: values[n] for n in self.values_of.values()}

    def _scales(self) -> dict[str, Scale]:
        """Of every value, from all frames so far and from perturbed runs of the first of them."""
        found, first = {}, self.runs[:None if self.policy.carried else MEASURED]  # errors of steps accumulate
        moved = frame_values(self.runner, [r.frame for r in first], seed=0)
        still = _constant_outputs(self.staged.program)
        if still:  # the stages hold them folded: rounded anew on the way to them
            inputs = {n: torch.from_numpy(a) for n, a in first[0].frame.writes.items()}
            anew = execute(self.staged.program, inputs, past=dict(self.past), observe=perturbed_results(0))[0]
            moved[0] = {**moved[0], **{n: anew[n] for n in still}}
        for name, value in self.runs[0].values.items():
            if value.dtype.kind != "f":
                continue
            columns = columns_of(value.shape, name in self.outputs)
            found[name] = Scale.of([r.values[name] for r in self.runs], columns).rounded(
                [Seen.of(m[name].numpy(), r.computed[name], columns) for m, r in zip(moved, first, strict=True)])
        return found

    def _checked(self, scales: dict[str, Scale], picky: bool) -> tuple[list[Frame], dict[str, Metrics]]:
        """The frames with their limits, and the distance of the staged graph from the original function. Raises
        ParityError."""
        parity: dict[str, Metrics] = {}
        self.again = behind_steps(self.runner, [r.frame for r in self.runs])
        for i, run in enumerate(self.runs):
            for name, got in run.proved.items():
                want, scale = run.original[name], scales.get(name)
                scale = scale.rounded(self.rounded[name]) if scale is not None and name in self.rounded else scale
                kind = self.coarse if self.coarse and want.dtype.kind == "f" else dtype_name(got.dtype.str)
                limit = self._tolerance(name, kind, "chunk").limit(want, scale)
                if not self.shortened:  # what shows there that later iterations do something else is no rounding
                    limit = self._of_whole_numbers(name, want) or self._beside_steps(limit, i, name, scale)
                found = examine(got, want, limit)
                parity[name] = found.got.worst(parity.get(name, found.got))
                if picky and self.written is None and kind == "f32" and self._is_rounding(found, name, i):
                    raise _IllConditioned
                self._require(found, name, run.frame.label)
        return [self._expected(i, self._scales_of(r, scales)) for i, r in enumerate(self.runs)], parity

    def _expected(self, i: int, scales: Mapping[str, Scale]) -> Frame:
        run = self.runs[i]
        return replace(run.frame, expects={n: Expected(v, self._beside_steps(self._limit(n, v, scales), i, n,
                                                                             scales.get(n)))
                                           for n, v in run.values.items()})

    def _beside_steps(self, limit: Limit, i: int, name: str, scale: Scale | None) -> Limit:
        """On the i-th frame."""
        if name not in self.again[i]:
            return limit
        smooth = np.zeros(1) if scale is None else CHANCE * LARGER * scale.rounding
        reach = self._reach(name) if scale is None else scale.reach
        return beside_steps(limit, self.runs[i].values[name], self.again[i][name], smooth, reach)

    def _reach(self, name: str) -> np.ndarray:
        """f64[1], of whole numbers."""
        return Scale.of([r.values[name] for r in self.runs], 1).reach

    def _scales_of(self, run: _Run, scales: Mapping[str, Scale]) -> Mapping[str, Scale]:
        """Those of a frame. What a norm makes of equal numbers is rounding alone, larger than on other frames."""
        moved = self.moved.get(run.frame.label)
        if moved is None:
            return scales
        return {n: s if n not in moved else s.rounded(
            [Seen.of(moved[n].numpy(), run.computed[n], len(s.center))]) for n, s in scales.items()}

    def _of_whole_numbers(self, name: str, want: np.ndarray) -> Limit | None:
        """Of whole numbers that a policy in 16 bits rounds or chooses: what rounding at other places changed;
        None: nothing, or they are no whole numbers."""
        if want.dtype.kind == "f" or name not in self.rounded:
            return None
        largest = max(float(s.largest.max()) for s in self.rounded[name])
        return Limit(WHOLE * largest, math.inf, -1.0) if largest else None

    def _is_rounding(self, found: Comparison, name: str, index: int) -> bool:
        """Whether an error is a considerable part of its limit, and no larger than what f32 rounding causes there."""
        if found.got.max_abs <= NEAR * found.limit.max_abs:
            return False
        frames = [r.frame for r in self.runs[:index + 1]]
        return found.got.max_abs <= NOISE * _last_bits(self.runner, frames, name)

    def _limit(self, name: str, value: np.ndarray, scales: Mapping[str, Scale]) -> Limit:
        level = "chunk" if name in self.outputs else "stage"
        return self._tolerance(name, dtype_name(value.dtype.str), level).limit(value, scales.get(name))

    def _tolerance(self, name: str, dtype: str, level: str) -> Tolerance:
        """dtype: of the computation. An output in 16 bits may always differ by a last digit of its own."""
        found, own = tolerance(dtype, level), self.digits.get(name)
        return found if own is None else replace(found, eps=max(found.eps, own.eps / 2), smallest=own.smallest_normal)

    def _exactly(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Rounds inputs to values that are exact in the dtype that the policy declares."""
        return as_taken(tensor.to(self.policy.example_inputs[name].dtype))

    def _window(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {n: append(self.seen.get(n), inputs[n], s.history) for n, s in self.policy.sources.items()
                if s.history > 1}

    def _original(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():  # on copies, as the function may write into its inputs
            given = inputs | self._window(inputs) | self.carried
            found = self.policy.infer(**{n: t.clone() for n, t in given.items()})
        return {n: _handed_out(found[n]) for n in self.outputs}

    def _first_valid(self, candidates: Sequence[Mapping[str, torch.Tensor]]):
        """(inputs, original outputs) of the first candidate with finite outputs; (None, None) if there is none."""
        for inputs in candidates:
            try:
                found = self._original(inputs)
            except CaptureError:
                raise
            except Exception:  # noqa: BLE001  whatever the policy raises, it does not accept this edge case
                continue
            if all(bool(torch.isfinite(t).all()) for t in found.values() if t.is_floating_point()):
                return inputs, found
        return None, None

    def _rounded_anew(self, inputs: Mapping[str, torch.Tensor], looks_back: bool,
                      sign: float) -> Mapping[str, torch.Tensor] | None:
        """All values with rounding drawn anew, or opposite to that draw. None where they cannot be compared with
        anything: of policies that look back, whose stages compute otherwise than they do."""
        if not looks_back:
            return self.runner.run(inputs, {}, observe=perturbed(0, sign))
        if self.written is not None or self.coarse:
            return None
        outputs, kept = execute(self.staged.program, inputs, keep=self.values_of, past=dict(self.past),
                                observe=perturbed_results(0, sign))
        return outputs | {self.values_of[node]: tensor for node, tensor in kept.items()}

    def _decided_by_last_bits(self, inputs: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor],
                              moved: Mapping[str, torch.Tensor] | None, scales: Mapping[str, Scale]) -> bool:
        """Whether an output exceeds its limits when every f32 result is perturbed by rounding errors, as after a
        division by the standard deviation of equal numbers. moved: all values then; None: not known."""
        if moved is None:
            return False
        exact = original if self.written is None and not self.coarse else self.runner.run(inputs, {})
        wanted = {n: exact[n].numpy() for n in self.outputs if exact[n].is_floating_point()}
        return not all(examine(moved[n].numpy(), w, self._limit(n, w, scales)).passed for n, w in wanted.items())

    def _as_traced(self, label: str, inputs: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]) -> None:
        """Checks that the program in the policy's own dtypes equals the policy, before dtypes are changed."""
        if self.traced is None:
            return
        raw = {name: tensor.to(self.policy.example_inputs[n].dtype) for n, t in {**inputs, **self.seen}.items()
               for name, tensor in frames_of(self.policy.sources, {n: t}).items()} | self.carried
        whole = any(not v.is_floating_point() for v in original.values())  # their limit knows no frame's scale
        times = [1.0, LARGER_IN_HALF, -LARGER_IN_HALF] if whole else [1.0] if len(self.runs) < MEASURED else []
        moved = [execute(self.traced, raw, observe=perturbed_results(0, t))[0] for t in times]
        for name, tensor in execute(self.traced, raw)[0].items():
            got, want = _handed_out(tensor).float().numpy(), original[name].float().numpy()
            self.rounded.setdefault(name, []).extend(
                Seen.of(_handed_out(run[name]).float().numpy(), got, columns_of(want.shape, output=True))
                for run in (moved[:1] if tensor.is_floating_point() else moved))
            found = examine(got, want, tolerance("f32", "stage").limit(want))
            if not found.passed and tensor.is_floating_point():
                found = examine(got, want, self._rounded_as_written(name, raw, got, want))
            self._require(found, name, label)

    def _rounded_as_written(self, name: str, raw: Mapping[str, torch.Tensor], got: np.ndarray,
                            want: np.ndarray) -> Limit:
        """Limits of an output if the policy rounds at other places than its trace, as PyTorch's fused layers do. got,
        want: its value of the trace and of the policy."""
        columns = columns_of(want.shape, output=True)
        runs = [execute(self.traced, raw, observe=perturbed_results(seed))[0] for seed in range(PERTURBED_RUNS)]
        scale = Scale.alone(want, columns).rounded(
            [Seen.of(_handed_out(r[name]).float().numpy(), got, columns) for r in runs])
        return self._tolerance(name, "f32", "stage").limit(want, scale)

    def _require(self, found: Comparison, name: str, label: str) -> None:
        if not found.passed:
            raise ParityError(
                f'the staged graph computes another "{name}" than the original function',
                where=f'policy "{self.policy.name}", golden frame "{label}"',
                why=found.text(),
                fix=FIX_OF_A_LOOP if any(s.iterations > 1 for s in self.staged.stages) else
                "if PyTorch's result is the same for the same inputs, this is a bug of the compiler: report it "
                "with this policy; a smaller policy that shows it helps to locate it")


@dataclass(frozen=True)
class _Run:
    """frame: without limits. original: the policy's outputs. proved: those of the program that has to equal it.
    computed: all values of the stages. values: those that the frame expects."""

    frame: Frame
    original: Mapping[str, np.ndarray]
    proved: Mapping[str, np.ndarray]
    computed: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]


def _digits(program: Program) -> dict[str, torch.finfo]:
    dtypes = {n: node.meta["val"].dtype for n, node in zip(program.outputs, program.output_nodes(), strict=True)}
    return {n: torch.finfo(d) for n, d in dtypes.items() if d in (torch.float16, torch.bfloat16)}


def _handed_out(output: torch.Tensor) -> torch.Tensor:
    """An output of the policy as in a bundle: a scalar as [1], floating point in f32."""
    if isinstance(output, FakeTensor):
        raise CaptureError("the inference function keeps state", where="what it returns after it was traced",
                           why="it reads a value that tracing left in a global or in an object of its own",
                           fix=KEEP_NOTHING)
    output = output.detach()
    wide = output.float() if output.is_floating_point() else as_taken(output)
    return (wide.reshape(1) if wide.dim() == 0 else wide).contiguous()


def _written(policy: Policy, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {n: as_taken(t).contiguous().numpy() for n, t in inputs.items() if policy.sources[n].update != "static"}


def _constant_outputs(program: Program) -> list[str]:
    """Outputs that no source changes; what they read of one is the shape of the zeros by which they are copied."""
    reached: set[Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" or (node.target is not torch.ops.aten.new_zeros.default
                                        and not reached.isdisjoint(node.all_input_nodes)):
            reached.add(node)
    return [n for n, node in zip(program.outputs, program.output_nodes(), strict=True) if node not in reached]


def _last_bits(runner: StageRunner, frames: list[Frame], name: str) -> float:
    """The largest change of an output of the last frame when every f32 result is perturbed by rounding errors."""
    want, *moved = (frame_values(runner, frames, seed)[-1][name] for seed in (None, *range(PERTURBED_RUNS)))
    return max(float((m - want).abs().max()) for m in moved)
