"""Weights that are in a checkpoint and that inference does not read."""

from __future__ import annotations

from torch import nn


class Unread(nn.Identity):
    """In place of a module: takes what a checkpoint has for it, which may be nothing. A language model
    whose head is tied to its embedding can be saved with a head of its own, which a training never changed; loaded
    into the tied model, it would replace the embedding."""

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        pass
