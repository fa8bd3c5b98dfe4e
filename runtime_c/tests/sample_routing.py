"""A small routing table: two backbones, three instructions in two clusters, vectors of eight and three numbers."""

from __future__ import annotations

from vlacompile.routing.table import Backbone, Evidence, Prior, Route, RoutingTable, Rule, Space
from vlacompile.routing.table_binary import table_bytes


def sample_table() -> RoutingTable:
    def of(*rows: tuple[float, float, float]) -> tuple[Evidence, ...]:
        return tuple(Evidence(*row) for row in rows)

    nothing = of((0.0, 0.0, 10.0), (0.0, 0.0, 11.0))
    routes = (Route("put the bowl on the plate", 0, of((9.5, 0.5, 9.0), (10.0, 0.0, 10.0))),
              Route("put the bowl on the stove", 0, of((6.0, 4.0, 10.0), (9.0, 1.0, 12.0))),
              Route("turn on the stove", 1, of((3.0, 2.0, 8.0), (3.0, 2.0, 9.0))),
              Route("", 0, nothing), Route("", 1, nothing), Route("", None, nothing))
    texts = Space(0.5, ((0.5, 0.5, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0), (0.0, 0.0, 0.75, 0.25, 0.0, 0.0, 0.5, 0.25)),
                  (1.0, 1.5, 1.0, 2.0, 1.0, 1.0, 1.25, 1.0))
    return RoutingTable((Backbone("light", 5.0, 3.0, 30.0), Backbone("heavy", 40.0, 3.25, 30.0)), routes,
                        Prior(1.0, 1.0, 2.0), Rule(0.05, 0.25), texts,
                        Space(0.75, ((1.0, 0.0, 0.0), (0.0, 0.75, 0.5)))).check("sample")


def sample_bytes() -> bytes:
    return table_bytes(sample_table())
