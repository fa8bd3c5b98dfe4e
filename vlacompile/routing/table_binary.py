"""Routing table -> the file that libvlart reads. The layout is in bundle/format/layout.py."""

from __future__ import annotations

from vlacompile.routing.table import RoutingTable, Space
from vlacompile.routing.words import normalised
from vlart.bundle.format import layout
from vlart.bundle.format.sections import SectionWriter


def table_bytes(table: RoutingTable) -> bytes:
    """The file's content; deterministic. The table must be valid (RoutingTable.check)."""
    w = SectionWriter(layout.ROUTING_MAGIC, layout.ROUTING_SECTIONS)

    def floats(what: str, numbers) -> dict[str, int]:
        begin, count = w.scalars("floats", numbers)
        return {f"{what}_begin": begin, f"{what}_count": count}

    def centroids(space: Space | None) -> list[float]:
        return [x for c in space.centroids for x in c] if space else []

    e = table.embeddings
    w.add("router", prior_success=table.prior.success, prior_failure=table.prior.failure, strength=table.prior.strength,
          delta=table.rule.delta, tau=table.rule.tau, nearest_text=table.texts.nearest,
          nearest_embedding=e.nearest if e else 0.0, cluster_count=table.clusters, text_dim=len(table.texts.weights),
          embedding_dim=len(e.centroids[0]) if e else 0, **floats("text_weight", table.texts.weights),
          **floats("text_centroid", centroids(table.texts)), **floats("embedding_centroid", centroids(e)))
    for b in table.backbones:
        w.add("backbones", name=w.string(b.name), task_ms=b.task_ms, replan_ms=b.replan_ms,
              replans_failed=b.replans_failed)
    for route in table.routes:
        w.add("routes", text=w.string(normalised(route.text).decode()) if route.text else layout.NONE,
              cluster=layout.NONE if route.cluster is None else route.cluster)
        for x in route.evidence:
            w.add("evidence", successes=x.successes, failures=x.failures, replans=x.replans)
    return w.to_bytes()
