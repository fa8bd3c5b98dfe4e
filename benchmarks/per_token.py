"""What scales of activations per token would cost on a board: int8 products of one static scale per tensor, as
TensorRT's explicit quantisation has them, beside a plugin that measures a scale for every row as it runs (W8A8).

Modelled from the recorded products of profiles/plans/board, at two ends. At best the plugin quantises within the norm
that comes before, for nothing: static int8's time. At worst each product has a kernel of its own before it, which reads
its rows in fp16 and writes them in int8. Plans record a weight's size and not its sides: rows are taken as wide as a
square weight's. Part of `python -m benchmarks.board_model`.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlacompile.hardware.cost_model import SchemeRates
from vlacompile.hardware.target import Target

BYTES = 2 + 1  # of an activation: read in fp16, written in int8


def quantising_ms(plan: dict, target: Target) -> float:
    """ms per replan of the kernels that quantise rows, one before each linear layer."""
    assert target.rates is not None and target.rates.int8 is not None
    return sum(s["iterations"] * p["count"] * _kernel_us(p, target.rates.int8)
               for s in plan["stages"] if s["every"] for p in s["products"] if p["kind"] == "linear") / 1e3


def _kernel_us(product: dict, rates: SchemeRates) -> float:
    return rates.call_us + BYTES * product["rows"] * product["weights"] ** 0.5 / rates.gbps / 1e3


def rows(times: Iterable[tuple[str, dict, float, float]], target: Target) -> list[dict]:
    """times: (policy, plan, ms per replan in fp16, and in int8 with static scales)."""
    return [{"name": name, "fp16_ms": fp16, "static_ms": static, "worst_ms": static + quantising_ms(plan, target)}
            for name, plan, fp16, static in times]
