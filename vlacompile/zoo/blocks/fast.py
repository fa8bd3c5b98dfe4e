"""The sizes of FAST's universal tokenizer (Pertsch et al. 2025, arXiv 2501.09747), and a stand-in for its tokens."""

from __future__ import annotations

from vlacompile.frontends.fast import Fast

VOCABULARY, LOWEST, SCALE = 2048, -354, 10.0


def stand_in(count: int = VOCABULARY) -> Fast:
    """Integers, counted from LOWEST, of every token: those about zero alone, then pairs of them. The published
    tokenizer's are a file that this package does not contain."""
    half = min(count // 4, -LOWEST)
    single = [(-LOWEST + i,) for i in range(-half, half)]
    near = range(-LOWEST - 8, -LOWEST + 9)
    pairs = [(a, b) for a in near for b in near]
    pieces = (*single, *(pairs[i % len(pairs)] for i in range(count - len(single))))
    return Fast(pieces, LOWEST, SCALE, "integers")
