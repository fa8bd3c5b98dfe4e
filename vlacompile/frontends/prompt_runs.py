"""A prompt in which images stand between text: runs of tokens. Must not know models."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def runs(ids: Sequence[int], image: int) -> list[torch.Tensor | None]:
    """Runs of text tokens [1,n], with None for each image's run of image tokens, which text encloses."""
    found: list[torch.Tensor | None] = []
    begin = 0
    for i in range(1, len(ids) + 1):
        if i == len(ids) or (ids[i] == image) != (ids[begin] == image):
            found.append(None if ids[begin] == image else torch.tensor([ids[begin:i]]))
            begin = i
    return found
