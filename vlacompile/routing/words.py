"""Vectors of instructions without an encoder (hashed character n-grams), and the nearest cluster of a vector.

`runtime_c/src/router/router_ngrams.c` does the same operations in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlacompile.routing.table import Space

BUCKETS = 512
SHORTEST, LONGEST = 3, 5  # bytes of an n-gram
MOST_BYTES = 512  # bytes of an instruction


def normalised(text: str) -> bytes:
    """Lower case; every run of ASCII characters other than letters and digits becomes one space."""
    out = bytearray()
    for byte in text.encode():
        byte += 32 if 65 <= byte <= 90 else 0
        if 97 <= byte <= 122 or 48 <= byte <= 57 or byte >= 128:
            out.append(byte)
        elif out and out[-1] != 32:
            out.append(32)
    return bytes(out).rstrip(b" ")


def counts(text: str) -> list[float]:
    """[BUCKETS] number of occurrences of each n-gram of SHORTEST..LONGEST bytes in " text ", by FNV-1a
    (http://www.isthe.com/chongo/tech/comp/fnv), 32 bits, modulo BUCKETS."""
    padded = b" " + normalised(text) + b" "
    out = [0.0] * BUCKETS
    for begin in range(len(padded)):
        digest = 2166136261
        for length, byte in enumerate(padded[begin: begin + LONGEST], 1):
            digest = (digest ^ byte) * 16777619 & 0xFFFFFFFF
            if length >= SHORTEST:
                out[digest % BUCKETS] += 1.0
    return out


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """0 if either vector is zero."""
    ab = aa = bb = 0.0
    for x, y in zip(a, b, strict=True):
        ab += x * y
        aa += x * x
        bb += y * y
    return ab / math.sqrt(aa * bb) if aa > 0.0 and bb > 0.0 else 0.0


def nearest_cluster(space: Space, vector: Sequence[float]) -> tuple[int | None, float]:
    """(the cluster with the largest cosine, or None if that is below space.nearest; the cosine)"""
    if space.weights:
        vector = [x * w for x, w in zip(vector, space.weights, strict=True)]
    best, found = -2.0, 0
    for i, centroid in enumerate(space.centroids):
        similarity = cosine(vector, centroid)
        if similarity > best:
            best, found = similarity, i
    return (found if best >= space.nearest else None), best
