"""Golden frames: inputs, the outputs of the original function, and PyTorch's values between the stages.

Owns the check, before anything is emitted, that the stages and the original function agree. Must not know engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node

from vlacompile.compiler.capture.buffer_state import KEEP_NOTHING
from vlacompile.compiler.capture.history import append, newest_of
from vlacompile.compiler.graph.program import Program, execute
from vlacompile.compiler.passes.legalise_types import coarsest
from vlacompile.compiler.precision.fp16.attention_masks import saturated
from vlacompile.compiler.staging.known_instructions import SpokenText
from vlacompile.compiler.staging.run_stages import Observer, StageRunner, Values
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.errors import CaptureError, ParityError, PrecisionError
from vlacompile.policy.policy import TORCH_DTYPES, Policy, as_taken
from vlacompile.policy.sample_inputs import edge_inputs, golden_inputs, spoken_in_turn
from vlacompile.recipe.recipe import VerifyRecipe
from vlacompile.verify.frames import Expected, Frame
from vlacompile.verify.metrics import Metrics, compare
from vlacompile.verify.tolerances import beside_policy, tolerance, usually, within_precision
from vlacompile.vocabulary import dtype_name

DISTURBED_RUNS, LAST_BITS = 5, 1e-6  # relative perturbation, the size of f32 rounding in another order of summation
NEAR = 0.25  # share of a limit above which an error is examined
NOISE = 4.0  # errors up to this multiple of the effect of f32 rounding are attributed to rounding
DRAWS = 4  # attempts to draw golden inputs that are well-conditioned


def golden(policy: Policy, staged: Staged, written: Program | None, recipe: VerifyRecipe,
           spoken: tuple[SpokenText, ...] = (),
           traced: Program | None = None) -> tuple[list[Frame], dict[str, Metrics]]:
    """(golden frames, {output: distance of the staged graph from the original function}).

    A frame has inputs (for a history the newest observation), what the original function returns for them and the
    observations before, and PyTorch's value of everything between stages. written: the graph to compare with the
    original function, if a loop was given fewer evaluations; None: the staged one. traced: the program as traced. If
    the result of a frame is decided by f32 rounding alone, all inputs are drawn again. Raises ParityError if the
    functions differ."""
    recorder = _Recorder(policy, staged, written, traced)
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
    computes, if the stages compute in another; then the policy's outputs are only reproduced to that precision."""

    def __init__(self, policy: Policy, staged: Staged, written: Program | None, traced: Program | None):
        self.policy, self.staged, self.written = policy, staged, written
        self.values_of = {node: name for name, node in staged.origin.items()}
        self.coarse = None if traced is None or coarsest(traced) == "f32" else coarsest(traced)
        whole = (self.coarse is not None and traced.iterations is None
                 and all(s.history == 1 for s in policy.sources.values()))
        self.traced = traced if whole else None

    def record(self, count: int, spoken: tuple[SpokenText, ...], seed: int,
               picky: bool) -> tuple[list[Frame], dict[str, Metrics]]:
        self.frames: list[Frame] = []
        self.parity: dict[str, Metrics] = {}
        self.seen: dict[str, torch.Tensor] = {}
        self.past: dict[str, torch.Tensor] = {}
        self.past_as_written: dict[str, torch.Tensor] = {}
        sources = dict(self.policy.sources)
        newest = newest_of(sources, self.policy.example_inputs)
        longest = max((s.history for s in sources.values()), default=1)
        drawn = golden_inputs(sources, newest, max(count, longest + 2), seed)
        texts = [s.writes for s in spoken]
        for label, inputs in spoken_in_turn(drawn, texts):
            inputs = {n: self._exactly(n, t) for n, t in inputs.items()}
            self._frame(label, inputs, self._original(inputs), picky)
        last = {n: torch.from_numpy(a) for n, a in self.frames[-1].writes.items()} if spoken else {}
        said = {n: last[n] for n in (texts[0] if texts else ())}
        for label, candidates in edge_inputs(sources, newest):
            inputs, original = self._first_valid([{**c, **said} for c in candidates])
            if inputs is not None and not self._decided_by_last_bits(inputs, original):
                self._frame(label, inputs, original, False)
        return self.frames, self.parity

    def _exactly(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Rounds inputs to values that are exact in the dtype that the policy declares."""
        return as_taken(tensor.to(self.policy.example_inputs[name].dtype))

    def _window(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {n: append(self.seen.get(n), inputs[n], s.history) for n, s in self.policy.sources.items()
                if s.history > 1}

    def _original(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():  # on copies, as the function may write into its inputs
            found = self.policy.infer(**{n: t.clone() for n, t in (inputs | self._window(inputs)).items()})
        return {n: _handed_out(found[n]) for n in self.policy.outputs}

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

    def _decided_by_last_bits(self, inputs: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]) -> bool:
        """Whether an output exceeds its limits when every f32 result is perturbed by rounding errors, as after a
        division by the standard deviation of equal numbers. False for policies with histories, which would have to be
        run again."""
        if any(s.history > 1 for s in self.policy.sources.values()) or self.written is not None or self.coarse:
            return False
        found = StageRunner(self.staged).run(inputs, {}, observe=disturbed(0))
        names = [n for n in self.policy.outputs if original[n].is_floating_point()]
        return not all(compare(found[n].numpy(),
                               original[n].numpy()).within(tolerance("f32", "chunk").limit(original[n].numpy()))
                       for n in names)

    def _frame(self, label: str, inputs: dict[str, torch.Tensor], original: Mapping[str, torch.Tensor],
               picky: bool) -> None:
        self.seen |= self._window(inputs)
        outputs, kept = execute(self.staged.program, inputs, keep=self.values_of, past=self.past)
        proved = outputs if self.written is None else execute(self.written, inputs, past=self.past_as_written)[0]
        written = _written(self.policy, inputs)
        self._as_traced(label, inputs, original)
        for name, tensor in proved.items():
            kind = self.coarse if self.coarse and tensor.is_floating_point() else TORCH_DTYPES[tensor.dtype]
            got = compare(tensor.detach().numpy(), original[name].numpy())
            self.parity[name] = got.worst(self.parity.get(name, got))
            limit = tolerance(kind, "chunk").limit(original[name].numpy())
            if picky and self.written is None and kind == "f32" and got.max_abs > NEAR * limit.max_abs and \
                    got.max_abs <= NOISE * _last_bits(self.staged, [*self.frames, Frame(label, written, {})], name):
                raise _IllConditioned
            self._require(got, limit, name, label)
        expects = {}
        for node, tensor in kept.items():
            name = self.values_of[node]
            level = "chunk" if name in self.policy.outputs else "stage"
            exact = level == "chunk" and self.written is None and self.coarse is None
            want = (original[name] if exact else tensor).detach().contiguous().numpy()
            expects[name] = Expected(want, tolerance(TORCH_DTYPES[tensor.dtype], level).limit(want))
        self.frames.append(Frame(label, written, expects))

    def _as_traced(self, label: str, inputs: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]) -> None:
        """Checks that the program in the policy's own dtypes equals the policy, before dtypes are changed."""
        if self.traced is None:
            return
        raw = {n: t.to(self.policy.example_inputs[n].dtype) for n, t in inputs.items()}
        for name, tensor in execute(self.traced, raw)[0].items():
            got = compare(_handed_out(tensor).float().numpy(), original[name].float().numpy())
            self._require(got, tolerance("f32", "stage").limit(original[name].float().numpy()), name, label)

    def _require(self, got: Metrics, limit: Metrics, name: str, label: str) -> None:
        if not got.within(limit):
            raise ParityError(
                f'the staged graph computes another "{name}" than the original function',
                where=f'policy "{self.policy.name}", golden frame "{label}"',
                why=f"max_abs {got.max_abs:.3g} (limit {limit.max_abs:.3g}), rel_l2 {got.rel_l2:.3g} "
                    f"({limit.rel_l2:.3g})",
                fix="if PyTorch's result is the same for the same inputs, this is a bug of the compiler: report it "
                    "with this policy; a smaller policy that shows it helps to locate it")


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


def _last_bits(staged: Staged, frames: list[Frame], name: str) -> float:
    """The largest change of an output of the last frame when every f32 result is perturbed by rounding errors."""
    want, *moved = (frame_values(staged, frames, seed)[-1][name] for seed in (None, *range(DISTURBED_RUNS)))
    return max(float((m - want).abs().max()) for m in moved)


def golden_precise(frames: list[Frame], precise: Staged, outputs: tuple[str, ...],
                   masks: frozenset[str] = frozenset()) \
        -> list[Frame]:
    """The same frames with the values that the stages compute in their precision, and limits for other engines (see
    verify/tolerances.py). The policy's results in full precision are kept as references. masks: values that only mask
    logits: saturating them in fp16 does not count as an error."""
    got, *runs = ([{n: v[n].contiguous().numpy() for n in f.expects} for v, f in zip(values, frames, strict=True)]
                  for values in (frame_values(precise, frames, seed) for seed in (None, *range(DISTURBED_RUNS))))
    found = []
    for i, frame in enumerate(frames):
        expects, references = {}, {}
        for name, expected in frame.expects.items():
            seen = (lambda x: saturated(torch.from_numpy(x)).numpy()) if name in masks else lambda x: x
            mine, want, apart = seen(got[i][name]), seen(expected.array), Metrics(0.0, 0.0, 1.0)
            for run in runs:
                apart = apart.worst(compare(seen(run[i][name]), mine))
            full = tolerance(dtype_name(want.dtype.str), "stage").limit(want) if name in masks else expected.limit
            if not np.isfinite(mine).all() and np.isfinite(want).all():
                raise PrecisionError(
                    f'"{name}" is NaN or infinite in the chosen precision', where=f'golden frame "{frame.label}"',
                    why="it is finite in full precision: the calibration observations are not close to these inputs",
                    fix="give Policy(calibration=...) observations like these, or keep the layers before it in fp32 "
                        "by a rule")
            moved = compare(mine, want)
            others = [(seen(got[k][name]), seen(f.expects[name].array)) for k, f in enumerate(frames)]
            often = moved.worst(usually(others, want))
            limit = within_precision(full, often, apart, mine.size)
            expects[name] = Expected(got[i][name], limit)
            if name in outputs:
                references[name] = Expected(expected.array, beside_policy(limit, often))
        found.append(Frame(frame.label, frame.writes, expects, references))
    return found


def frame_values(staged: Staged, frames: list[Frame], seed: int | None) -> list[Values]:
    """All values of the stages, frame by frame. seed: perturbs every f32 result by rounding errors; None: does not."""
    runner, past = StageRunner(staged), {}
    observe = None if seed is None else disturbed(seed)
    return [runner.run({n: torch.from_numpy(a) for n, a in f.writes.items()}, past, observe=observe) for f in frames]


def disturbed(seed: int) -> Observer:
    """Perturbs every f32 result by relative errors of LAST_BITS."""
    draw = torch.Generator().manual_seed(seed)

    def disturb(stage: StageGraph, node: Node, result):
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32 and node.op == "call_function":
            return result * (1 + LAST_BITS * torch.randn(result.shape, generator=draw))
        return None

    return disturb
