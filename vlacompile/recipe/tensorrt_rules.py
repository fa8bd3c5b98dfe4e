"""The rules of emission for a board that a recipe can turn off."""

from __future__ import annotations

from dataclasses import dataclass

FP32_SUMS = ("all", "long", "none")


@dataclass(frozen=True)
class TensorRTRecipe:
    """How the stages of a board are written; each key turns a rule off.

    fp32_sums: fp16 products that are summed in f32: "all", those of many terms and few rows ("long"), or "none": as
        TensorRT chooses.
    patch_products: embeddings of patches are products of matrices, in the place of convolutions.
    fusible_attentions: attentions of one head, or of heads below 9 numbers, take the nearest form that is fused."""

    fp32_sums: str = "all"
    patch_products: bool = True
    fusible_attentions: bool = True
