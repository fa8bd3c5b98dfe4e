"""Cost model of stages and layers on a target: launch overhead and rates, measured or modelled; see `source`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """overhead_us: launch overhead of one more stage. gflops: compute rate of a small stage.
    Their product is the amount of work below which a stage is not worth its launch."""

    overhead_us: float
    gflops: float
    source: str

    @property
    def min_stage_flops(self) -> int:
        return int(self.overhead_us * 1e-6 * self.gflops * 1e9)


@dataclass(frozen=True)
class SchemeRates:
    """Cost of layers of one scheme. call_us: fixed cost of one call of a layer. gbps: rate of reading stored weights
    from memory, 1e9 bytes per second. *_gflops: compute rate for many rows, 1e9 operations per second; None: not
    supported by the target. edge_geps: activations quantised or dequantised around a convolution, 1e9 per second;
    None: at no cost."""

    call_us: float
    gbps: float
    linear_gflops: float
    conv_gflops: float | None = None
    depthwise_gflops: float | None = None
    edge_geps: float | None = None

    def once_us(self, operations: float, stored: float, gflops: float) -> float:
        """Latency in us of one call of a layer that reads `stored` bytes of weights: a roofline with a fixed cost."""
        return self.call_us + max(operations / gflops, stored / self.gbps) / 1e3


@dataclass(frozen=True)
class Rates:
    """Rates by scheme; None: the target does not support it."""

    source: str
    fp32: SchemeRates | None = None
    fp16: SchemeRates | None = None
    int8: SchemeRates | None = None
    int4: SchemeRates | None = None
