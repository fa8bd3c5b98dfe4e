"""What PyTorch's encoder gives for padded tokens where it computes others alone.

`nn.TransformerEncoder` called without gradients drops padded tokens, if they are the last ones, and pads its result
with zeros; while it is traced it computes them. What is traced here is what it gives when it is called.

Must not know graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def padded_with_zeros() -> Iterator[None]:
    """Within this context encoders give zeros for tokens that they would drop."""
    forward = nn.TransformerEncoder.forward

    def padded(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        if not _drops_tokens(self, src, mask, src_key_padding_mask):
            return forward(self, src, mask, src_key_padding_mask, is_causal)
        norm, self._modules["norm"] = self.norm, None
        try:
            result = forward(self, src, mask, src_key_padding_mask, is_causal)
        finally:
            self._modules["norm"] = norm
        hidden = src_key_padding_mask if src_key_padding_mask.dtype is torch.bool else src_key_padding_mask != 0
        behind = ~(hidden[:, :-1] & ~hidden[:, 1:]).any()  # no token that counts comes after one that does not
        result = result.masked_fill((hidden & behind)[..., None], 0.0)
        return result if norm is None else norm(result)

    nn.TransformerEncoder.forward = padded
    try:
        yield
    finally:
        nn.TransformerEncoder.forward = forward


def _drops_tokens(encoder: nn.TransformerEncoder, src: torch.Tensor, mask, padding) -> bool:
    return (torch.backends.mha.get_fastpath_enabled() and getattr(encoder, "use_nested_tensor", False)
            and getattr(encoder, "mask_check", True) and not encoder.layers[0].training and src.dim() == 3
            and mask is None and padding is not None and not torch.is_autocast_enabled(src.device.type))
