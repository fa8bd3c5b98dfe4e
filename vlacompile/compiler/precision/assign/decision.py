"""Frozen records of an assignment of schemes to layers, and their table in 80 columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vlacompile.compiler.precision.assign.sensitivity import Schemes
from vlacompile.compiler.staging.stages import Staged
from vlart.bundle.plan.plan import Precision, as_f32


@dataclass(frozen=True)
class Decision:
    """Layers of one block that got one scheme. decided: a key of vocabulary.DECIDERS. nodes: of the stage's graph.
    error: action error of this decision alone, per layout.PRECISION; None: not measured (rules and defaults need no
    measurement). time_us: of all iterations of a run of the stage; None: the target has no rate. bytes: of the stored
    weights; weights that an earlier decision stores are not counted again. time_saved_us, bytes_saved: compared with
    fp32, without sharing."""

    stage: str
    group: str
    scheme: str
    decided: str
    nodes: tuple[str, ...]
    error: float | None
    time_us: float | None
    bytes: int
    time_saved_us: float | None
    bytes_saved: int
    why: str = ""


@dataclass(frozen=True)
class Totals:
    """time_us: average per replan; stages that depend on the task alone count with layer_costs.runs_per_replan; None:
    the target lacks a rate."""

    time_us: float | None
    bytes: int


@dataclass(frozen=True)
class Assignment:
    """error: measured with all decisions together, per action dimension, in units of its spread over the calibration
    observations; held_out: the same on observations that did not influence the choice, or empty. budget: the recipe's,
    or None. chosen, fp32: totals of all layers. notes: the log of the search. tried: (block, scheme, its error alone)
    of everything that the search could choose. jerk: how many times as jerky as fp32's the chunks are, of the worst
    dimension; None: they have no jerk. max_jerk: the recipe's limit of it, or None."""

    decisions: tuple[Decision, ...]
    error: tuple[float, ...]
    held_out: tuple[float, ...]
    budget: float | None
    chosen: Totals
    fp32: Totals
    notes: tuple[str, ...] = field(default=())
    tried: tuple[tuple[str, str, float], ...] = field(default=())
    jerk: float | None = None
    max_jerk: float | None = None

    @property
    def worst(self) -> float:
        return max(self.error)

    @property
    def schemes(self) -> Schemes:
        """{stage: {node: scheme}} of every layer."""
        found: dict[str, dict[str, str]] = {}
        for d in self.decisions:
            found.setdefault(d.stage, {}).update(dict.fromkeys(d.nodes, d.scheme))
        return found


def marked(staged: Staged, assignment: Assignment, measured: bool = True) -> Staged:
    """The stages with the decisions for their layers, for the plan. measured: whether errors of int8 layers are
    measurements; if not, they are recorded as 0."""
    found: dict[str, list[Precision]] = {}
    for d in assignment.decisions:
        error, time = as_f32((d.error or 0.0 if measured or d.scheme != "int8" else 0.0, d.time_us or 0.0))
        found.setdefault(d.stage, []).append(
            Precision(d.group, d.scheme, d.decided, len(d.nodes), error, time, d.bytes))
    return replace(staged, stages=tuple(replace(s, precisions=tuple(found.get(s.name, ()))) for s in staged.stages))


_WIDTH = 32


def table(assignment: Assignment) -> str:
    """One line per decision, then the totals."""
    lines = [f"{'layers':{_WIDTH}}  {'n':>3}  scheme  {'error':>7}  {'saved us':>8}  {'MB':>6}  by"]
    for d in assignment.decisions:
        error = "-" if d.error is None else f"{d.error:.4f}" if d.error < 100 else "inf"
        saved = "-" if d.time_saved_us is None else f"{d.time_saved_us:.1f}"
        lines.append(f"{_short(d.group):{_WIDTH}}  {len(d.nodes):3}  {d.scheme:6}  {error:>7}  {saved:>8}  "
                     f"{d.bytes_saved / 1e6:6.2f}  {_BY[d.decided]}")
    a, b = assignment.chosen, assignment.fp32
    lines.append(f"weights of layers: {a.bytes / 1e6:.2f} MB instead of {b.bytes / 1e6:.2f} in fp32")
    if a.time_us is not None and b.time_us is not None:
        lines.append(f"time of layers per replan, by rates: {a.time_us / 1e3:.3f} ms instead of {b.time_us / 1e3:.3f}")
    budget = "no budget" if assignment.budget is None else f"budget {assignment.budget:g}"
    held = f", held out: {max(assignment.held_out):.4g}" if assignment.held_out else ""
    lines.append(f"action error in units of the spread: {assignment.worst:.4g} ({budget}){held}")
    if assignment.jerk is not None:
        limit = "no limit" if assignment.max_jerk is None else f"limit {assignment.max_jerk:g}"
        lines.append(f"jerk within a chunk, times that of fp32: {assignment.jerk:.4g} ({limit})")
    return "\n".join(lines) + "\n"


_BY = {"rule": "rule", "optimiser": "choice", "default": "-"}


def _short(name: str) -> str:
    """Shortens a long name to its stage and its last words, which are the most specific."""
    if len(name) <= _WIDTH:
        return name
    stage, _, path = name.partition("/")
    room = _WIDTH - len(stage) - 2
    return f"{stage}/…{path[-room:]}" if room >= 8 else "…" + name[1 - _WIDTH:]
