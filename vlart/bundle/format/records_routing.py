"""Records of a routing table; see layout.py."""

from __future__ import annotations

from vlart.bundle.format.record import number, real, record, reserved, span, string

ROUTER = record(
    "router",
    "Of a routing table, exactly one: how its decisions are made (vlacompile/routing).",
    real("prior_success", "f64", "Beta(success, failure) of a backbone of which nothing is known"),
    real("prior_failure", "f64", "the same"),
    real("strength", "f64", "episodes that the mean of one level counts as at the level below"),
    real("delta", "f64", "margin of success"),
    real("tau", "f64", "least probability of being not worse by more than delta"),
    real("nearest_text", "f64", "smallest cosine to a cluster's centroid, of texts"),
    real("nearest_embedding", "f64", "the same of embeddings"),
    number("cluster_count", "u32", "C"),
    number("text_dim", "u32", "B: buckets of runs of letters"),
    number("embedding_dim", "u32", "D; 0: no embeddings"),
    reserved(),
    span("text_weight", "floats", "B"),
    span("text_centroid", "floats", "C * B"),
    span("embedding_centroid", "floats", "C * D"),
)

BACKBONE = record(
    "backbone",
    "One of those that a routing table chooses from, from the lightest to the one that is escalated to.",
    string("name", "unique"),
    reserved(),
    real("task_ms", "f64", "computed once per instruction"),
    real("replan_ms", "f64", "computed per replan"),
    real("replans_failed", "f64", "of an episode that fails"),
)

ROUTE = record(
    "route",
    "An instruction; after those, one for the others of each cluster, and one for what no cluster is near.",
    string("text", "normalised; NONE: of instructions that are not listed", optional=True),
    number("cluster", "u32", "cluster, or NONE"),
)

EVIDENCE = record(
    "evidence",
    "Of one route and backbone; in the order of routes, and for each of backbones.",
    real("successes", "f64", "initial states that were solved; one that was played several times counts once"),
    real("failures", "f64", "initial states that were not"),
    real("replans", "f64", "of an episode that succeeds, in the mean"),
)
