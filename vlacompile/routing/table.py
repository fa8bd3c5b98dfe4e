"""The routing table: backbones, instructions, evidence, thresholds; read from and written to JSON.

`decide.py` uses it, `fit.py` makes it, `table_binary.py` writes it for libvlart. Numbers that libvlart stores as f32
are rounded here already, so that both decide from the same numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vlart.errors import ConfigError
from vlart.files.tables import from_table

SCHEMA = 1
MOST_BACKBONES, MOST_ROUTES, MOST_CLUSTERS, MOST_NUMBERS = 4, 256, 64, 4096  # libvlart's limits
MOST_EPISODES = 50_000.0  # per instruction and backbone


@dataclass(frozen=True)
class Backbone:
    """task_ms: cost per instruction; replan_ms: per replan. replans_failed: replans of a failed episode (until it is
    given up). Ordered from the lightest to the one that is escalated to."""

    name: str
    task_ms: float
    replan_ms: float
    replans_failed: float


@dataclass(frozen=True)
class Evidence:
    """Evidence of one route and backbone. successes, failures: episodes; an initial state counts once however often it
    was played, so they may be fractional. replans: mean of a successful episode."""

    successes: float
    failures: float
    replans: float

    @property
    def episodes(self) -> float:
        return self.successes + self.failures


@dataclass(frozen=True)
class Route:
    """An instruction; or with text "" all unlisted instructions of a cluster, or (cluster None) of no cluster."""

    text: str
    cluster: int | None
    evidence: tuple[Evidence, ...]  # one per backbone


@dataclass(frozen=True)
class Prior:
    """Beta(success, failure) of a backbone without evidence. strength: the number of episodes that the mean of the
    level above counts as (decide.posterior)."""

    success: float = 1.0
    failure: float = 1.0
    strength: float = 2.0


@dataclass(frozen=True)
class Rule:
    """A backbone is good enough if P(its success >= the last one's - delta) >= tau."""

    delta: float
    tau: float


@dataclass(frozen=True)
class Space:
    """Vectors of instructions. nearest: smallest cosine at which an instruction belongs to a cluster. centroids:
    [clusters][dim], f32. weights: of the dimensions, for texts; empty for embeddings."""

    nearest: float
    centroids: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...] = field(default=())


@dataclass(frozen=True)
class RoutingTable:
    """routes: listed instructions, then one per cluster for its other instructions, then one for all the rest.
    texts: for the fallback that needs no encoder. embeddings: of an encoder; None: there is none."""

    backbones: tuple[Backbone, ...]
    routes: tuple[Route, ...]
    prior: Prior
    rule: Rule
    texts: Space
    embeddings: Space | None = None
    sources: tuple[str, ...] = field(default=())  # sources of evidence and costs, for people
    schema: int = SCHEMA

    @property
    def clusters(self) -> int:
        return len(self.texts.centroids)

    def check(self, where: str) -> RoutingTable:
        """Raises ConfigError for an invalid table; libvlart makes the same checks."""
        n, clusters = len(self.backbones), self.clusters
        known = [r.text for r in self.routes if r.text]
        rest = [r.cluster for r in self.routes if not r.text]
        spaces = [self.texts] + ([self.embeddings] if self.embeddings else [])
        numbers = [x for b in self.backbones for x in (b.task_ms, b.replan_ms, b.replans_failed)]
        numbers += [x for r in self.routes for e in r.evidence for x in (e.successes, e.failures, e.replans)]
        rules = [
            (self.schema == SCHEMA, f"schema {self.schema}", f"this version reads schema {SCHEMA}"),
            (2 <= n <= MOST_BACKBONES and len({b.name for b in self.backbones}) == n, f"{n} backbones",
             f"2 to {MOST_BACKBONES} with different names"),
            (1 <= clusters <= MOST_CLUSTERS, f"{clusters} clusters", f"1 to {MOST_CLUSTERS}"),
            (len(self.routes) <= MOST_ROUTES, f"{len(self.routes)} routes", f"at most {MOST_ROUTES}"),
            (len(set(known)) == len(known), "a duplicate instruction", "every instruction has one route"),
            (rest == [*range(clusters), None] and not any(r.text for r in self.routes[len(known):]),
             "the routes of unlisted instructions", "they must come last: one per cluster, then one without"),
            (all(r.cluster is not None and 0 <= r.cluster < clusters for r in self.routes if r.text),
             "an instruction's cluster", "it must be one of the table's"),
            (all(len(r.evidence) == n for r in self.routes), "evidence", "one per backbone"),
            (all(0 <= x <= 1e9 for x in numbers), "a number of the evidence or costs", "finite and not negative"),
            (all(e.episodes <= MOST_EPISODES for r in self.routes for e in r.evidence), "too many episodes",
             f"at most {MOST_EPISODES:g} of one instruction"),
            (all(0.05 <= x <= 1e3 for x in (self.prior.success, self.prior.failure))
             and 0.1 <= self.prior.strength <= 1e3, "prior", "0.05 to 1000, strength at least 0.1"),
            (0 <= self.rule.delta < 1 and 0 < self.rule.tau < 1, "delta or tau", "0 <= delta < 1, 0 < tau < 1"),
            (all(len(s.centroids) == clusters and len({len(c) for c in s.centroids}) == 1
                 and 1 <= len(s.centroids[0]) <= MOST_NUMBERS and -1 <= s.nearest <= 1
                 and all(math.isfinite(x) for c in (*s.centroids, s.weights) for x in c) for s in spaces),
             "vectors of clusters", f"one per cluster, of one size up to {MOST_NUMBERS}, finite"),
            (all(len(s.weights) == (len(s.centroids[0]) if s is self.texts else 0) for s in spaces), "weights",
             "texts have one per dimension, embeddings none"),
        ]
        for good, what, why in rules:
            if not good:
                raise ConfigError(f"the routing table is not valid: {what}", where=where, why=why,
                                  fix="fit it again with `vlacompile route fit`")
        return self


def read_table(path: str | Path) -> RoutingTable:
    """Raises ConfigError."""
    where = str(path)
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("cannot read the routing table", where=where, why=str(error),
                          fix="give a file that `vlacompile route fit` wrote") from error
    if not isinstance(document, dict):
        raise ConfigError("the routing table is not a JSON object", where=where,
                          why=f"it is a {type(document).__name__}", fix="give a file that `vlacompile route fit` wrote")
    return _from_document(document, where).check(where)


def _from_document(document: dict, where: str) -> RoutingTable:
    """from_table cannot read nested tuples: the centroids are read separately."""
    spaces = {}
    for key in ("texts", "embeddings"):
        space = document.get(key)
        if isinstance(space, dict):
            rows = space.get("centroids")
            if not isinstance(rows, list) or not all(isinstance(r, list) and all(isinstance(x, (int, float)) for x in r)
                                                     for r in rows):
                raise ConfigError(f'"{key}.centroids" has the wrong type', where=where,
                                  why="it is not a list of lists of numbers", fix="fit the table again")
            spaces[key] = tuple(tuple(map(float, r)) for r in rows)
            document = document | {key: space | {"centroids": []}}
    plain = {k: v for k, v in document.items() if v is not None}
    for route in plain.get("routes", ()):
        if isinstance(route, dict) and route.get("cluster", 0) is None:
            route["cluster"] = -1
    table = from_table(RoutingTable, plain, where)
    routes = tuple(r if r.cluster != -1 else Route(r.text, None, r.evidence) for r in table.routes)
    parts = {k: Space(getattr(table, k).nearest, spaces[k], getattr(table, k).weights) for k in spaces}
    return RoutingTable(**{**{f: getattr(table, f) for f in table.__dataclass_fields__}, **parts, "routes": routes})


def table_text(table: RoutingTable) -> str:
    return json.dumps(asdict(table), indent=1) + "\n"
