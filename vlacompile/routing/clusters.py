"""Clusters similar instructions: average linkage on their vectors, and centroids to compare a new one with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from vlacompile.routing.table import Space
from vlacompile.routing.words import counts

ALIKE = {"embeddings": 0.6, "texts": 0.3}  # minimum mean cosine within a cluster, and of a new instruction to a cluster


def cluster(vectors: Sequence[Sequence[float]], alike: float) -> list[int]:
    """Cluster of each vector, numbered in order of appearance: average linkage of cosine distances, cut where the mean
    cosine falls below `alike`. Deterministic."""
    x = np.asarray(vectors, float)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    if len(x) == 1:
        return [0]
    distance = np.maximum(1.0 - x @ x.T, 0.0)
    labels = fcluster(linkage(distance[np.triu_indices(len(x), 1)], "average"), 1.0 - alike, "distance")
    number: dict[int, int] = {}
    return [number.setdefault(int(label), len(number)) for label in labels]


def text_weights(texts: Sequence[str]) -> tuple[float, ...]:
    """[BUCKETS] smoothed inverse document frequency, ln((1 + n) / (1 + texts with it)) + 1: n-grams that all
    instructions share carry little information. f32."""
    present = np.asarray([[c > 0 for c in counts(t)] for t in texts]).sum(0)
    return _f32(np.log((1 + len(texts)) / (1 + present)) + 1)


def text_vectors(texts: Sequence[str], weights: Sequence[float]) -> np.ndarray:
    """[texts][BUCKETS]"""
    return np.asarray([counts(t) for t in texts]) * np.asarray(weights)


def space(vectors: Sequence[Sequence[float]], of: Sequence[int], nearest: float,
          weights: Sequence[float] = ()) -> Space:
    """Centroids: mean of the unit vectors of each cluster, normalised."""
    x = np.asarray(vectors, float)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    rows = []
    for c in range(max(of) + 1):
        mean = x[[i for i, label in enumerate(of) if label == c]].mean(0)
        rows.append(_f32(mean / max(float(np.linalg.norm(mean)), 1e-30)))
    return Space(nearest, tuple(rows), tuple(weights))


def spaces(texts: Sequence[str], embeddings: Mapping[str, Sequence[float]] | None,
           alike: Mapping[str, float] = ALIKE) -> tuple[list[int], Space, Space | None]:
    """(cluster of each instruction, space of texts, space of embeddings). The clusters are those of the embeddings, or
    without embeddings those of the texts; both spaces describe the same clusters."""
    weights = text_weights(texts)
    by_text = text_vectors(texts, weights)
    if embeddings is None:
        of = cluster(by_text, alike["texts"])
        return of, space(by_text, of, alike["texts"], weights), None
    vectors = [embeddings[t] for t in texts]
    of = cluster(vectors, alike["embeddings"])
    return of, space(by_text, of, alike["texts"], weights), space(vectors, of, alike["embeddings"])


def _f32(numbers) -> tuple[float, ...]:
    return tuple(float(x) for x in np.asarray(numbers, np.float32))
