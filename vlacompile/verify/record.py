"""Golden frames: inputs, what the original function gives for them, and what PyTorch computes between the stages.

Owns that they are proven to be one function before anything is emitted. Must not know engines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.fx import Node

from vlacompile.bundle.layout import dtype_name
from vlacompile.capture.history import append, newest_of
from vlacompile.capture.program import Program, execute
from vlacompile.errors import ParityError
from vlacompile.policy import TORCH_DTYPES, Policy
from vlacompile.precision.masks import saturated
from vlacompile.recipe import VerifyRecipe
from vlacompile.staging.run_stages import StageRunner, Values
from vlacompile.staging.stages import Staged, StageGraph
from vlacompile.tokenize.instructions import SpokenText
from vlacompile.verify.frames import Expected, Frame
from vlacompile.verify.golden import golden_inputs, spoken_in_turn
from vlacompile.verify.metrics import Metrics, compare
from vlacompile.verify.tolerances import beside_policy, tolerance, usually, within_precision

DISTURBED_RUNS, LAST_BITS = 5, 1e-6  # relative: what f32 arithmetic in another order comes to differ by
NEAR = 0.25  # of a limit: from there on it is asked why
NOISE = 4.0  # an output that differs by less than so many times what last bits make of it says nothing
DRAWS = 4  # of golden inputs, until none of them is decided by last bits


def golden(policy: Policy, staged: Staged, written: Program | None, recipe: VerifyRecipe,
           spoken: tuple[SpokenText, ...] = ()) -> tuple[list[Frame], dict[str, Metrics]]:
    """Golden frames: inputs (of a history the newest observation), what the original function returns for them and
    for the observations before, and what PyTorch computes for every value between stages; and how far the staged graph
    is from the original function, per output. written: the graph that the original function is compared with, where a
    loop was given fewer evaluations than that; None: the staged one. Inputs on which the last bits of floats alone decide what comes out are drawn
    again, all of them.
    Raises ParityError when it is another function."""
    for seed in range(recipe.seed, recipe.seed + DRAWS):
        try:
            return _golden(policy, staged, written, recipe.frames, spoken, seed)
        except _IllConditioned:
            continue
    return _golden(policy, staged, written, recipe.frames, spoken, recipe.seed, picky=False)


class _IllConditioned(Exception):
    """A golden frame differs by no more than what the last bits of floats make of it, and by so much that an engine, which
    adds in another order, may come to differ by more than the limits allow."""


def _golden(policy: Policy, staged: Staged, written: Program | None, count: int, spoken: tuple[SpokenText, ...],
            seed: int, picky: bool = True) -> tuple[list[Frame], dict[str, Metrics]]:
    values_of = {node: name for name, node in staged.origin.items()}
    frames: list[Frame] = []
    parity: dict[str, Metrics] = {}
    newest = newest_of(policy.sources, policy.example_inputs)
    longest = max((s.history for s in policy.sources.values()), default=1)
    seen: dict[str, torch.Tensor] = {}
    past: dict[str, torch.Tensor] = {}
    past_as_written: dict[str, torch.Tensor] = {}
    drawn = golden_inputs(dict(policy.sources), newest, max(count, longest + 2), seed)
    for label, inputs in spoken_in_turn(drawn, [s.writes for s in spoken]):
        seen |= {n: append(seen.get(n), inputs[n], s.history) for n, s in policy.sources.items() if s.history > 1}
        with torch.no_grad():
            original = policy.infer(**(inputs | seen))
        outputs, kept = execute(staged.program, inputs, keep=values_of, past=past)
        proved = outputs if written is None else execute(written, inputs, past=past_as_written)[0]
        for name, tensor in proved.items():
            got = compare(tensor.numpy(), original[name].contiguous().numpy())
            parity[name] = got.worst(parity.get(name, got))
            limit = tolerance(TORCH_DTYPES[tensor.dtype], "chunk").limit(original[name].numpy())
            so_far = [*frames, Frame(label, _written(policy, inputs), {})]
            if (picky and written is None and tensor.is_floating_point() and got.max_abs > NEAR * limit.max_abs
                    and got.max_abs <= NOISE * _last_bits(staged, so_far, name)):
                raise _IllConditioned
            if not got.within(limit):
                raise ParityError(
                    f'the staged graph gives another "{name}" than the original function',
                    where=f'policy "{policy.name}", golden frame "{label}"',
                    why=f"max_abs {got.max_abs:.3g} (limit {limit.max_abs:.3g})",
                    fix="the function may keep state or draw random numbers: make both inputs")
        expects = {}
        for node, tensor in kept.items():
            name = values_of[node]
            level = "chunk" if name in policy.outputs else "stage"
            want = (original[name] if level == "chunk" and written is None else tensor).contiguous().numpy()
            expects[name] = Expected(want, tolerance(TORCH_DTYPES[tensor.dtype], level).limit(want))
        frames.append(Frame(label, _written(policy, inputs), expects))
    return frames, parity


def _written(policy: Policy, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {n: t.contiguous().numpy() for n, t in inputs.items() if policy.sources[n].update != "static"}


def _last_bits(staged: Staged, frames: list[Frame], name: str) -> float:
    """How far an output of the last frame moves, at most, when every f32 result is disturbed in its last bits."""
    want, *moved = (frame_values(staged, frames, seed)[-1][name] for seed in (None, *range(DISTURBED_RUNS)))
    return max(float((m - want).abs().max()) for m in moved)


def golden_precise(frames: list[Frame], precise: Staged, outputs: tuple[str, ...], masks: frozenset[str] = frozenset()) \
        -> list[Frame]:
    """The same frames with what the stages compute in their precision, and how far another engine may be from it (see
    verify/tolerances.py). What the policy gave in full precision stays beside it. masks: values that only say what counts,
    which a precision does not move by ending sooner."""
    got, *twins = ([{n: v[n].contiguous().numpy() for n in f.expects} for v, f in zip(values, frames, strict=True)]
                   for values in (frame_values(precise, frames, seed) for seed in (None, *range(DISTURBED_RUNS))))
    found = []
    for i, frame in enumerate(frames):
        expects, references = {}, {}
        for name, expected in frame.expects.items():
            seen = (lambda x: saturated(torch.from_numpy(x)).numpy()) if name in masks else lambda x: x
            mine, want, apart = seen(got[i][name]), seen(expected.array), Metrics(0.0, 0.0, 1.0)
            for twin in twins:
                apart = apart.worst(compare(seen(twin[i][name]), mine))
            full = tolerance(dtype_name(want.dtype.str), "stage").limit(want) if name in masks else expected.limit
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
    """All values of the stages, frame by frame. seed: every f32 result is disturbed in its last bits; None: none is."""
    runner, past = StageRunner(staged), {}
    draw = None if seed is None else torch.Generator().manual_seed(seed)

    def disturb(stage: StageGraph, node: Node, result):
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32 and node.op == "call_function":
            return result * (1 + LAST_BITS * torch.randn(result.shape, generator=draw))

    return [runner.run({n: torch.from_numpy(a) for n, a in f.writes.items()}, past, observe=disturb if draw else None)
            for f in frames]
