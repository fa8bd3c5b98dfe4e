"""Latency model of layers on a board, from its clocks and published efficiencies; nothing is measured here.

Each factor below is the share of a peak that others reached on an Orin. Their publications are listed in
vlacompile/profile/published.py, and a test beside it checks how far the model is from their other figures.
"""

from __future__ import annotations

from vlacompile.hardware.board import Board, Mode
from vlacompile.hardware.cost_model import Launch, Rates, SchemeRates

# Share of the GPU's dense peak for many rows. A vision transformer of 256 tokens in TensorRT FP16 on AGX Orin takes
# 11.96 ms:
# 18.3 of 42.6 TFLOPS.
LINEAR_FP16 = 0.43
# Four INT8 GEMMs of a prefill with 522 rows on AGX Orin reach 30, 37, 54 and 61 % (FlashRT, docs/deployment_orin.md).
LINEAR_INT8 = 0.45
# No figure was published for transformers without TF32; assumed equal to FP16's share of its own, smaller peak.
LINEAR_FP32 = 0.43
# The same convolutional network in FP32 at 612 MHz takes 66.7 ms and in FP16 at 413 MHz 23.3 ms on Orin Nano (a public
# log of an LPCV course, L4T 36.4.7): 4.2 times as fast per clock where the peak is 8 times as high: half the share.
CONV_FP16 = 0.22
CONV_INT8 = 0.22  # assumed equal to FP16's; no figure was published
# Share of the DRAM bandwidth for few rows: 79 % (a language model of 2 G weights in 4 bits, TensorRT, Orin Nano: 80.7
# GB/s), 85 % (INT8 11008x4096, FlashRT on AGX Orin: 173 GB/s).
BANDWIDTH = 0.80
# A layer's cost besides reading its weights (launch overhead, the norm and attention around it): the rest of a
# denoising step
# of 126 layers that takes 5.2 ms where its weights take 3.8 (BF16, ApxInf on AGX Orin).
CALL_US = 10.0
# Latency floor of a chain of small kernels (FlashRT on AGX Orin: GEMV and GEMM of ten rows take 46-60 us however
# small).
LAUNCH_US = 50.0
# {board: measured over modelled latency}, fitted by `python -m benchmarks.board_model` to profiles/boards by the rule
# of benchmarks/board_records.py. Empty: no board was measured so far.
BOARD_FACTORS: dict[str, float] = {}
SOURCE = ("modelled: clocks x SMs x the published efficiencies of vlacompile/hardware/board_cost_model.py; not "
          "measured on this board")


def modelled_rates(board: Board, mode: Mode, factor: float = 1.0) -> Rates:
    """Rates by scheme; int4 stores fewer bytes and computes in fp16. A depthwise convolution runs on CUDA cores.
    factor: of all times (BOARD_FACTORS)."""
    gbps = BANDWIDTH * mode.dram_gbps(board.memory) / factor
    gpu = board.gpu
    depthwise = 1e3 * LINEAR_FP32 * mode.tops("fp32", gpu) / factor
    reached = 1.0 if gpu.fp16_share is None else gpu.fp16_share / LINEAR_FP16  # of what an Orin reaches of its peak

    def of(scheme: str, linear: float, conv: float | None) -> SchemeRates:
        peak = 1e3 * mode.tops(scheme, gpu) * (1.0 if scheme == "fp32" else reached) / factor
        # activations around an int8 convolution: two bytes read, one written
        return SchemeRates(CALL_US * factor, gbps, linear * peak, None if conv is None else conv * peak,
                           None if conv is None else depthwise, gbps / 3 if scheme == "int8" else None)

    return Rates(SOURCE, of("fp32", LINEAR_FP32, LINEAR_FP32), of("fp16", LINEAR_FP16, CONV_FP16),
                 of("int8", LINEAR_INT8, CONV_INT8), of("int4", LINEAR_FP16, None))


def modelled_launch(board: Board, mode: Mode, factor: float = 1.0) -> Launch:
    """A small stage has few rows: two operations per fp16 weight of two bytes, hence as many GFLOPS as GB/s."""
    return Launch(LAUNCH_US * factor, BANDWIDTH * mode.dram_gbps(board.memory) / factor, SOURCE)
