"""What a stage and its layers cost somewhere: launches and rates, measured or modelled; `source` says which."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """overhead_us: cost of running one more stage. gflops: rate at which a small stage computes.
    Their product is the work below which a stage is not worth a launch."""

    overhead_us: float
    gflops: float
    source: str

    @property
    def min_stage_flops(self) -> int:
        return int(self.overhead_us * 1e-6 * self.gflops * 1e9)


@dataclass(frozen=True)
class SchemeRates:
    """What layers of one scheme cost. call_us: one call of a layer, whatever its size. gbps: bytes of stored weights
    that come from memory, 1e9 per second. *_gflops: many rows, 1e9 operations per second; None: the target has none.
    edge_geps: activations quantised or dequantised around a convolution, 1e9 per second; None: that is free."""

    call_us: float
    gbps: float
    linear_gflops: float
    conv_gflops: float | None = None
    depthwise_gflops: float | None = None
    edge_geps: float | None = None

    def once_us(self, operations: float, stored: float, gflops: float) -> float:
        """One call of a layer that reads `stored` bytes of weights: a roofline with a fixed cost."""
        return self.call_us + max(operations / gflops, stored / self.gbps) / 1e3


@dataclass(frozen=True)
class Rates:
    """By scheme; None: the target does not run it."""

    source: str
    fp32: SchemeRates | None = None
    fp16: SchemeRates | None = None
    int8: SchemeRates | None = None
    int4: SchemeRates | None = None
