"""Published latencies of transformers on Orin boards, with the work behind them, and the model's error on
them.

The work is computed from public configurations: 2 operations per weight and row, a weight read once per pass. `factor`
is the allowed error of the model, either way; where it exceeds 1.3 the reason is given beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.hardware.target import load_target
from vlacompile.profile.kernel_work import Kernel
from vlacompile.profile.power import EXTRAPOLATED_FACTOR
from vlacompile.profile.roofline import BYTES_PER_WEIGHT, stage_us


@dataclass(frozen=True)
class Pass:
    """weights: parameters of all layers that are run; rows: of their inputs; layers: their number; more: operations
    besides the layers', such as attention; times: how often the pass is run."""

    weights: float
    rows: int
    layers: int
    scheme: str = "fp16"
    times: int = 1
    more: float = 0.0


@dataclass(frozen=True)
class Published:
    """fitted: the model's factors were fitted to this row, so it is no independent evidence."""

    name: str
    target: str
    passes: tuple[Pass, ...]
    ms: float
    factor: float
    source: str
    fitted: bool = False


# SigLIP-So400m: 27 layers of 1152 x 4304, 256 tokens per view
SIGLIP = 27 * (4 * 1152**2 + 2 * 1152 * 4304)
SEES = 27 * 2 * 2 * 256**2 * 1152
# Gemma-2B: 18 layers of 2048 x 16384, 8 heads of 256, one for keys and values; the expert: 311 M
GEMMA, EXPERT = 18 * (2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 16384), 311e6
LLAMA_7B = 32 * (4 * 4096**2 + 3 * 4096 * 11008)


def views(count: int, scheme: str = "fp16") -> Pass:
    return Pass(SIGLIP, 256, 27 * 6, scheme, count, SEES)


def decode(weights: float, layers: int, scheme: str) -> tuple[Pass, ...]:
    return (Pass(weights, 1, layers, scheme),)


def gemm(n: int, k: int) -> tuple[Pass, ...]:
    return (Pass(n * k, 522, 1, "int8"),)


FLASH, GROOT = "FlashRT docs/deployment_orin.md", "Isaac-GR00T N1.5 deployment_scripts/README"
MLC = "jetson-ai-lab benchmarks (MLC, INT4)"
PI05 = "ApxInf doc/pi05-cuda-regression.md"
NANOLLM = "NanoLLM docs/openvla.md (MLC)"
SUPER, BASE, AGX = "orin-nano-8gb@maxn-super", "orin-nano-8gb@15w", "agx-orin-64gb@maxn"
OPENVLA_SEES = (views(1), Pass(303e6, 256, 24 * 6))

PUBLISHED = (
    Published("N1.5 vision", AGX, (views(1),), 11.96, 1.3, GROOT, fitted=True),
    Published("int8 522x2048x2048", AGX, gemm(2048, 2048), 0.095, 1.4, FLASH, fitted=True),
    Published("int8 522x8192x2048", AGX, gemm(8192, 2048), 0.337, 1.4, FLASH, fitted=True),
    # 100 blocks on 16 SMs: the last wave is a quarter full, which a roofline does not model
    Published("int8 522x2560x2048", AGX, gemm(2560, 2048), 0.214, 1.6, FLASH, fitted=True),
    Published("int8 522x2048x16384", AGX, gemm(2048, 16384), 1.126, 1.5, FLASH, fitted=True),
    Published("int8 row, 11008x4096", AGX, decode(11008 * 4096, 1, "int8"), 0.260, 1.3, "FlashRT Chameleon",
              fitted=True),
    # a kernel chain of a small matrix has a floor of some 50 us: the model counts it once per stage, not per layer
    Published("int8 row, 4096x4096", AGX, decode(4096 * 4096, 1, "int8"), 0.144, 1.5, "FlashRT Chameleon"),
    Published("pi0.5 step, bf16", AGX, (Pass(EXPERT, 10, 126),), 5.2, 1.3, PI05, fitted=True),
    Published("pi0.5, 2 views, bf16", AGX, (views(2), Pass(GEMMA, 522, 126), Pass(EXPERT, 10, 126, times=10)),
              165.67, 1.3, PI05),
    # cosine and quantisation kernels between layers are not modelled
    Published("pi0.5, 2 views, int8", AGX, (views(2, "int8"), Pass(GEMMA, 522, 126, "int8"),
                                            Pass(EXPERT, 10, 126, "int8", times=10)), 124.25, 1.5, PI05),
    Published("GR00T N1.6 DiT step, bf16", AGX, (Pass(1.1e9, 50, 256),), 18.0, 1.3,
              "Isaac-GR00T scripts/deployment/README"),
    Published("OpenVLA, fp16", AGX, (*OPENVLA_SEES, Pass(LLAMA_7B, 290, 224), Pass(LLAMA_7B, 1, 224, times=6)),
              840, 1.3, NANOLLM),
    Published("OpenVLA, 4-bit", AGX, (*OPENVLA_SEES, Pass(LLAMA_7B, 290, 224, "int4"),
                                      Pass(LLAMA_7B, 1, 224, "int4", times=6)), 336, 1.3, NANOLLM),
    Published("Qwen3-VL-2B decode, bf16", AGX, decode(1.72e9, 197, "fp16"), 1e3 / 36.8, 1.3, "FlashRT"),
    Published("Qwen3-VL-2B decode, 4-bit", SUPER, decode(1.35e9 / 0.5625, 197, "int4"), 16.7, 1.4,
              "TensorRT Edge-LLM, JetPack 6.2.2", fitted=True),
    Published("Llama-3.2-3B, 15 W", BASE, decode(3.21e9, 197, "int4"), 1e3 / 27.7, 1.3, MLC),
    Published("Llama-3.2-3B, Super", SUPER, decode(3.21e9, 197, "int4"), 1e3 / 43.1, 1.3, MLC),
    # a miss: a third slower than its bytes, without a published reason (soft caps, a vocabulary of 256 000)
    Published("Gemma-2-2B, 15 W", BASE, decode(2.61e9, 183, "int4"), 1e3 / 21.5, 1.7, MLC),
    Published("Gemma-2-2B, Super", SUPER, decode(2.61e9, 183, "int4"), 1e3 / 35.0, 1.5, MLC),
    Published("Qwen2.5-7B, 15 W", BASE, decode(7.07e9, 197, "int4"), 1e3 / 14.2, 1.3, MLC),
    Published("Qwen2.5-7B, Super", SUPER, decode(7.07e9, 197, "int4"), 1e3 / 21.8, 1.3, MLC),
    Published("Llama-3.1-8B, 15 W", BASE, decode(7.5e9, 225, "int4"), 1e3 / 14.0, 1.3, MLC),
    Published("Llama-3.1-8B, Super", SUPER, decode(7.5e9, 225, "int4"), 1e3 / 19.1, 1.3, MLC),
    # Engines of 0.868, 3.749 and 1.889 GB (docs/manifest-schema-v1.md of the same project): vision, a prefix of 848
    # tokens, an expert of ten steps. The mode is not given.
    Published("pi06, 3 views, fp16", "orin-nx-8gb@maxn-super",
              (views(3), Pass(3.749e9 / 2, 848, 126), Pass(1.889e9 / 2, 50, 126, times=10)), 695.4, 1.3,
              "Jinlong-cs/pi.cpp pull request 17"),
    Published("pi06, 3 views, fp16, AGX", AGX,
              (views(3), Pass(3.749e9 / 2, 848, 126), Pass(1.889e9 / 2, 50, 126, times=10)), 265.6, 1.5,
              "the same project, docs/manifest-schema-v1.md"),
)

# Generic kernels are not representative of TensorRT, but of how latency scales between boards (vla.cpp,
# docs/benchmark/jetson-orin-nano.md at f7e0f7f and jetson-agx-orin.md at a375a1e). ms on Orin Nano, on AGX Orin.
SCALES = {"SmolVLA vision": (298.6, 130.6), "pi0 after vision": (846.1 - 169.2, 350.6 - 75.5),
          "N1.5 vision": (84.8, 38.4), "N1.5 after vision": (295.2 - 84.8, 131.9 - 38.4)}

# Modelled over published latency of whole policies, measured by others with TensorRT on an Orin Nano 8 GB at the
# configuration of profiles/published; no factor of the model was fitted to them (`python -m benchmarks.board_model`).
POLICY_RATIOS = (1.0542, 1.0045, 1.1152, 0.9144, 0.9723, 0.9911)
# No engine was built on a board. These were built by TensorRT-RTX 1.7 for SM86 (profiles/rtx): bytes of weights over
# the
# modelled ones, minimum and maximum over all policies there; and {stage of the light policy in fp16: (products, kernels
# launched)}.
ENGINE_WEIGHTS = (0.984, 1.271)
ENGINE_KERNELS = {"vision.agentview": (35, 38), "vision.wrist": (35, 38), "language": (54, 69), "fusion.1": (9, 14),
                  "fusion.2": (39, 52)}


@dataclass(frozen=True)
class Checked:
    """A published and the modelled latency, ms."""

    row: Published
    modelled: float

    @property
    def ratio(self) -> float:
        return self.modelled / self.row.ms


def check(row: Published) -> Checked:
    """Model the row, with kernels of one shape per pass."""
    target = load_target(row.target)
    total = target.launch.overhead_us * (len(row.passes) > 1)
    for p in row.passes:
        stored = int(BYTES_PER_WEIGHT[p.scheme] * p.weights / p.layers)
        layer = Kernel(row.name, "linear", p.scheme, p.rows, int(2 * p.weights * p.rows / p.layers), stored, 0,
                       int(p.weights / p.layers))
        attention = Kernel(row.name, "attention", "fp16", p.rows, int(p.more), 0, 0, 0)
        total += p.times * sum(stage_us([*[layer] * p.layers, attention], target))
    return Checked(row, total / 1e3)


def held_out() -> tuple[Checked, ...]:
    """The rows that no factor of the model was fitted to."""
    return tuple(check(r) for r in PUBLISHED if not r.fitted)


def band(share: float = 0.9) -> float:
    """The factor within which the model is, either way, for this share of the held-out rows and policies."""
    factors = sorted(max(x, 1 / x) for x in (*(c.ratio for c in held_out()), *POLICY_RATIOS))
    return factors[min(len(factors) - 1, int(share * len(factors)))]


@dataclass(frozen=True)
class Bands:
    """Error bands of the modelled figures, as a factor either way. time: of nine in ten held-out latencies; joules:
    that times the error of powers in modes that nobody published; memory: the larger error on those engines' weights.
    kernels: kernels that an engine launches per product, minimum and maximum."""

    time: float
    joules: float
    memory: float
    kernels: tuple[float, float]


def bands() -> Bands:
    memory = max(max(x, 1 / x) for x in ENGINE_WEIGHTS)
    kernels = sorted(found / products for products, found in ENGINE_KERNELS.values())
    return Bands(band(), band() * EXTRAPOLATED_FACTOR, memory, (kernels[0], kernels[-1]))
