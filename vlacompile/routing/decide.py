"""Routing decisions: the route of an instruction, the posterior of each backbone there, and the chosen backbone.

`runtime_c/src/router/router.c` does the same operations in the same order on f64; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlacompile.routing.beta import LEAST, probability_not_worse
from vlacompile.routing.table import Evidence, RoutingTable
from vlacompile.routing.words import MOST_BYTES, counts, nearest_cluster, normalised
from vlart.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """route: index in the table. by: "text" (the instruction is listed), "embedding" or "words" (the nearest cluster),
    "nothing" (no cluster is near enough). similarity: cosine; 1 for a listed instruction."""

    route: int
    by: str
    similarity: float


@dataclass(frozen=True)
class Belief:
    """Posterior Beta(alpha, beta) of the success rate. probability: that it is not worse than the last backbone's by
    more than delta.
    cost_ms: expected cost of an episode."""

    alpha: float
    beta: float
    probability: float
    cost_ms: float

    @property
    def mean(self) -> float:
        return self.alpha / (self.alpha + self.beta)


@dataclass(frozen=True)
class Decision:
    """level: the finest with evidence for every backbone: "task", "cluster", "all", or "prior"."""

    place: Place
    level: str
    backbone: int
    beliefs: tuple[Belief, ...]


def locate(table: RoutingTable, text: str, embedding: Sequence[float] | None = None) -> Place:
    """Raises ConfigError for an empty or too long text, or an embedding of the wrong size."""
    wanted = normalised(text)
    if not wanted or len(text.encode()) > MOST_BYTES:
        raise ConfigError("the instruction cannot be routed", where=f'"{text[:40]}"',
                          why="it has no letter or digit" if not wanted else f"it is longer than {MOST_BYTES} bytes",
                          fix="give an instruction as in the evaluation")
    for i, route in enumerate(table.routes):
        if route.text and normalised(route.text) == wanted:
            return Place(i, "text", 1.0)
    if embedding is not None and table.embeddings is not None:
        if len(embedding) != len(table.embeddings.centroids[0]):
            raise ConfigError("the embedding has the wrong size", where=f'"{text[:40]}"',
                              why=f"{len(embedding)} numbers, not {len(table.embeddings.centroids[0])}",
                              fix="use the encoder that the table was fitted with")
        by, (cluster, similarity) = "embedding", nearest_cluster(table.embeddings, embedding)
    else:
        by, (cluster, similarity) = "words", nearest_cluster(table.texts, counts(text))
    first = len(table.routes) - table.clusters - 1
    if cluster is None:
        return Place(first + table.clusters, "nothing", similarity)
    return Place(first + cluster, by, similarity)


def posterior(table: RoutingTable, route: int, backbone: int) -> tuple[float, float, str]:
    """(alpha, beta, level) of a backbone on a route.

    Hierarchical shrinkage: each level's mean counts as prior.strength episodes of the level below, and evidence counts
    at one level only:
      all      mean of prior + evidence of other clusters
      cluster  strength * (mean of all) + evidence of the cluster's other routes
      task     Beta(strength * (mean of cluster) + own successes, ... failures), no parameter below beta.LEAST
    """
    prior, own = table.prior, table.routes[route]
    good, bad = prior.success, prior.failure
    near_good = near_bad = 0.0
    for i, other in enumerate(table.routes):
        if i == route:
            continue
        e = other.evidence[backbone]
        if own.cluster is not None and other.cluster == own.cluster:
            near_good += e.successes
            near_bad += e.failures
        else:
            good += e.successes
            bad += e.failures
    mean = good / (good + bad)
    mean = (prior.strength * mean + near_good) / (prior.strength + (near_good + near_bad))
    e = own.evidence[backbone]
    alpha, beta = prior.strength * mean + e.successes, prior.strength * (1.0 - mean) + e.failures
    level = ("task" if e.episodes > 0 else "cluster" if near_good + near_bad > 0
             else "all" if good + bad > prior.success + prior.failure else "prior")
    return max(alpha, LEAST), max(beta, LEAST), level


LEVELS = ("task", "cluster", "all", "prior")


def decide(table: RoutingTable, text: str, embedding: Sequence[float] | None = None) -> Decision:
    return decide_at(table, locate(table, text, embedding))


def decide_at(table: RoutingTable, place: Place) -> Decision:
    """The rule. Backbones are ordered from the lightest to the heaviest; the last one is the reference.

    A backbone is good enough if P(p >= p_last - delta) >= tau; the last one always is. Of the good ones, the one with
    the lowest expected cost of an episode is chosen; on a tie the lighter. A lighter backbone that fails so often that
    its episodes cost more is therefore not chosen. The light default and escalation above an uncertainty threshold
    are those of arXiv 2510.25122; the non-inferiority margin and the cost are our own.
    """
    found = [posterior(table, place.route, k) for k in range(len(table.backbones))]
    last_alpha, last_beta, _ = found[-1]
    beliefs, best = [], len(found) - 1
    for k, (alpha, beta, _) in enumerate(found):
        p = 1.0 if k == len(found) - 1 else probability_not_worse(alpha, beta, last_alpha, last_beta, table.rule.delta)
        beliefs.append(Belief(alpha, beta, p, _cost(table, place.route, k, alpha / (alpha + beta))))
    for k in range(len(found) - 1, -1, -1):
        if beliefs[k].probability >= table.rule.tau and beliefs[k].cost_ms <= beliefs[best].cost_ms:
            best = k
    level = max((f[2] for f in found), key=LEVELS.index)
    return Decision(place, level, best, tuple(beliefs))


def _cost(table: RoutingTable, route: int, backbone: int, success: float) -> float:
    """Expected cost of an episode in ms."""
    b, solved = table.backbones[backbone], table.routes[route].evidence[backbone].replans
    return b.task_ms + b.replan_ms * (success * solved + (1.0 - success) * b.replans_failed)


def with_outcome(table: RoutingTable, route: int, backbone: int, success: bool) -> RoutingTable:
    """The table after one more episode, counted as in libvlart; beyond 4096 episodes of a route, libvlart halves the
    counts."""
    old = table.routes[route]
    e = old.evidence[backbone]
    new = Evidence(e.successes + success, e.failures + (not success), e.replans)
    evidence = tuple(new if k == backbone else x for k, x in enumerate(old.evidence))
    return replace(table, routes=tuple(replace(old, evidence=evidence) if i == route else r
                                       for i, r in enumerate(table.routes)))
