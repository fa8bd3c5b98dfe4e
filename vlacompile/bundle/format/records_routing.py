"""Records of a routing table; see layout.py."""

from __future__ import annotations

from vlacompile.bundle.format.record import record, span

ROUTER = record(
    "router",
    "Of a routing table, exactly one: how its decisions are made (vlacompile/routing).",
    ("prior_success", "f64", "Beta(success, failure) of a backbone of which nothing is known"),
    ("prior_failure", "f64", "the same"),
    ("strength", "f64", "episodes that the mean of one level counts as at the level below"),
    ("delta", "f64", "margin of success"),
    ("tau", "f64", "least probability of being not worse by more than delta"),
    ("nearest_text", "f64", "smallest cosine to a cluster's centroid, of texts"),
    ("nearest_embedding", "f64", "the same of embeddings"),
    ("cluster_count", "u32", "C"),
    ("text_dim", "u32", "B: buckets of runs of letters"),
    ("embedding_dim", "u32", "D; 0: no embeddings"),
    ("reserved", "u32", "zero"),
    *span("text_weight", "floats: B"),
    *span("text_centroid", "floats: C * B"),
    *span("embedding_centroid", "floats: C * D"),
)

BACKBONE = record(
    "backbone",
    "One of those that a routing table chooses from, from the lightest to the one that is escalated to.",
    ("name", "u32", "string, unique"),
    ("reserved", "u32", "zero"),
    ("task_ms", "f64", "computed once per instruction"),
    ("replan_ms", "f64", "computed per replan"),
    ("replans_failed", "f64", "of an episode that fails"),
)

ROUTE = record(
    "route",
    "An instruction; after those, one for the others of each cluster, and one for what no cluster is near.",
    ("text", "u32", "string: normalised; NONE: of instructions that are not listed"),
    ("cluster", "u32", "cluster, or NONE"),
)

EVIDENCE = record(
    "evidence",
    "Of one route and backbone; in the order of routes, and for each of backbones.",
    ("successes", "f64", "initial states that were solved; one that was played several times counts once"),
    ("failures", "f64", "initial states that were not"),
    ("replans", "f64", "of an episode that succeeds, in the mean"),
)
