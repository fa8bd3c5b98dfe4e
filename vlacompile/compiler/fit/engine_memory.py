"""Memory of an engine besides its weights, and memory of a board. Bytes in, bytes out.

The constants were measured with TensorRT-RTX 1.7.1 on x86-64 without a GPU, over engines of 8 to 2800 MB; they are
assumed to hold on a Jetson. Must not know stages or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.hardware.board import MIB
from vlacompile.hardware.target import Target

# An engine consists of its packed weights and 1-8 MB of plan.
ENGINE_BYTES = 8_000_000
# Activation memory of an engine with almost no activations: a fixed workspace of its GEMMs.
WORKSPACE_BYTES = 8_200_000
# Peak resident memory of a build: parsed weights, the builder's copy and the plan. 172 MB of weights: 791; 1260: 4500;
# 2817: 8600 (fp16); 767: 2515 (int8); 799: 2700 (int4).
BUILD_BYTES, BUILD_FACTOR = 280_000_000, 3.0


def build_peak(weights: int) -> int:
    """Peak bytes of building one engine with `weights` bytes of weights, without the CUDA context."""
    return int(BUILD_BYTES + BUILD_FACTOR * weights)


@dataclass(frozen=True)
class Budget:
    """usable: bytes available on the board. context: part of them that a process with CUDA and TensorRT takes before
    any engine. contiguous: the largest single allocation. swap: bytes that builds may use beyond `usable`; running
    never does."""

    name: str
    usable: int
    context: int
    contiguous: int
    swap: int = 0


def budget_of(target: Target, swap: int = 0) -> Budget:
    """The budget of a target with a board."""
    assert target.board is not None and target.software is not None
    memory = target.board.memory
    context = int(target.software.context_mb * 1e6)
    return Budget(target.name, memory.usable_bytes, context, memory.contiguous_mib * MIB, swap)
