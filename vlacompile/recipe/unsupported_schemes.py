"""Precisions that a target cannot compute or that this compiler does not store: refused with a reason.

Must not know recipes: it maps a scheme's name to a sentence.
"""

from __future__ import annotations

from vlacompile.hardware.target import Target
from vlart.vocabulary import SCHEMES

# scheme -> the lowest compute capability with support (TensorRT support matrix: FP8 with Ada, FP4 with Blackwell).
BEGINS_WITH = {"fp8": 89, "mxfp8": 100, "fp4": 100, "nvfp4": 100, "mxfp4": 100}
# Supported wherever fp16 is, but no weight is stored in these formats.
NOT_STORED = {"bf16": "fp16", "tf32": "fp32", "w4a8": "int4", "w8a16": "int8"}
ENGINES = {"onnxruntime": "ONNX Runtime's CPU kernels", "tvm": "the kernels that are compiled with TVM"}


def is_foreign(scheme: str) -> bool:
    """Whether the name is a known scheme that a bundle cannot hold."""
    return scheme in BEGINS_WITH or scheme in NOT_STORED


def refusal(scheme: str, target: Target | None) -> tuple[str, str]:
    """(why, fix) of an unsupported scheme. target: the hardware asked for; None: any."""
    if scheme in NOT_STORED:
        return f"no weight is stored as {scheme} in a bundle", f'use "{NOT_STORED[scheme]}"'
    begins = BEGINS_WITH[scheme]
    fix = 'use "int8"' if scheme in ("fp8", "mxfp8") else 'use "int4"'
    if target is None or target.board is None:
        engine = ENGINES.get(target.backend) if target is not None else None
        if engine is None:
            return f"{scheme} needs sm_{begins} or later, which no target here has", fix
        return f"{engine} compute {', '.join(SCHEMES)}; {scheme} needs a GPU of sm_{begins} or later", fix
    has = target.board.gpu.compute_capability
    if has < begins:
        return (f"{target.board.module} is sm_{has} and {scheme} needs sm_{begins} or later: "
                "TensorRT refuses it, or builds a broken or slower engine"), fix
    return f"a bundle holds {', '.join(SCHEMES)}", fix
