"""What a build takes of this machine at least, phase by phase: told before its work begins.

Owns the estimate from the policy's weights, and the refusal where it does not fit. Must not know how phases work.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.compiler.capture.modules import modules_of
from vlacompile.files.mapped import MAKE_ROOM, SMALLEST_BYTES, folder
from vlacompile.hardware.process_memory import available_bytes
from vlacompile.hardware.target import Target
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.policy.policy import Policy
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe
from vlart.errors import ConfigError

_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}
_WIDE = 4  # bytes of a weight in the compiler's own computations


@dataclass(frozen=True)
class Need:
    """memory_bytes: more than the process has now. scratch_bytes: in mapped files, kept until the build ends.
    out_bytes: of the bundle."""

    phase: Phase
    memory_bytes: int = 0
    scratch_bytes: int = 0
    out_bytes: int = 0

    def text(self) -> str:
        amounts = ((self.memory_bytes, "memory"), (self.scratch_bytes, "temporary files"), (self.out_bytes, "bundle"))
        return f"{self.phase}: " + ", ".join(f"{size / 1e9:.1f} GB of {what}" for size, what in amounts if size)


def needs_of(policy: Policy, recipe: PrecisionRecipe, target: Target) -> tuple[Need, ...]:
    """Lower bounds, as far as they follow from the policy's weights; those of phases that take little are left out.
    Engines map tables that they only look up, and hold the other weights in an order of their own."""
    weights, tables = _weights(policy)
    counts = {id(w): w.numel() for w in weights}
    held = sum(n for key, n in counts.items() if key not in tables)
    width = _stored_width(recipe, target, weights)
    wide = not recipe.reduced and target.board is None
    return (
        Need(Phase.READ_INPUTS, scratch_bytes=sum(w.numel() * w.element_size() for w in weights)),
        Need(Phase.FIND_STAGES, scratch_bytes=sum(_WIDE * w.numel() for w in weights if w.element_size() < _WIDE)),
        Need(Phase.PUBLISH, memory_bytes=int(held * (_WIDE if wide else width)),
             out_bytes=int(width * sum(counts.values()))),
    )


@phase(Phase.READ_INPUTS)
def check_room(inputs: Inputs, *, progress: Progress) -> None:
    """Tells what the build needs. Raises ConfigError if this machine has not as much."""
    if inputs.weights and (told := require_room(needs_of(inputs.policy, inputs.recipe.precision, inputs.target),
                                                inputs.out)):
        progress(told)


def require_room(needs: Sequence[Need], out: Path) -> str:
    """The needs in words; "" of a small policy. Raises ConfigError if this machine has not as much."""
    memory, scratch = max(n.memory_bytes for n in needs), sum(n.scratch_bytes for n in needs[1:])
    if max(memory, scratch) < SMALLEST_BYTES:
        return ""
    told = "; ".join(n.text() for n in needs if n.memory_bytes or n.scratch_bytes or n.out_bytes)
    if (free := available_bytes()) < memory:
        raise ConfigError(f"the build needs {memory / 1e9:.1f} GB of memory", where="this machine",
                          why=f"{free / 1e9:.1f} GB are available. {told}",
                          fix="end other programs, add swap, or choose a recipe with fewer bits: `vlacompile recipes`")
    beside = next(p for p in (out.absolute().parent, *out.absolute().parents) if p.exists())
    one_disk = beside.stat().st_dev == folder().stat().st_dev
    bundle = sum(n.out_bytes for n in needs)
    for place, size, fix in ((folder(), scratch + bundle * one_disk, MAKE_ROOM),
                             (beside, bundle + scratch * one_disk, "free room there, or choose another path for -o")):
        if (free := shutil.disk_usage(place).free) < size:
            raise ConfigError(f"the build needs {size / 1e9:.1f} GB of disk", where=str(place),
                              why=f"{free / 1e9:.1f} GB are free. {told}", fix=fix)
    return f"needs at least: {told}"


def _weights(policy: Policy) -> tuple[list[nn.Parameter], set[int]]:
    """(parameters, each once; those that are looked up in tables, by identity)"""
    modules = modules_of(*policy.functions).values()
    weights = {id(p): p for m in modules for p in m.parameters() if p.device.type == "cpu"}
    tables = {id(part.weight) for m in modules for part in m.modules() if isinstance(part, nn.Embedding)}
    return list(weights.values()), tables


def _stored_width(recipe: PrecisionRecipe, target: Target, weights: Sequence[torch.Tensor]) -> float:
    """Bytes per weight in the bundle, if every weight gets the fewest bits that the recipe allows."""
    asked = {recipe.base, recipe.layers, *(rule.scheme for rule in recipe.rule)}
    asked = (asked | set(recipe.schemes) if AUTO in asked else asked) if recipe.reduced else {"fp32"}
    least = min(_BYTES[s] for s in asked if s in _BYTES)
    narrow = all(w.element_size() < _WIDE for w in weights)
    if recipe.reduced or (target.board is None and not narrow):
        return least
    return _BYTES["int4"] if target.board is not None else _BYTES["fp16"]
