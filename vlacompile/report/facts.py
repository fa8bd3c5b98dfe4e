"""A bundle with its models and measurements -> the facts and figures of its report.

Owns the data behind each figure. Must not know HTML beyond the figures' SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlacompile.hardware.target import Target
from vlacompile.profile.kernel_work import StageWork
from vlacompile.profile.measure import Profile
from vlacompile.profile.published import Bands, Checked
from vlacompile.profile.roofline import Modelled, stage_us
from vlacompile.report.figures import Arrow, Bar, Box, Point, Segment, at_both_widths, bars, graph, roofline
from vlart.bundle.directory import Bundle
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.stage_rows import stage_rows
from vlart.vocabulary import SCHEMES

SPEED = {"static": "static", "task": "task", "observation": "observation", "step": "step", "tick": "tick"}
ORDER = ("static", "task", "observation", "step", "tick")
FAR = 4  # times the memory used: a mark further away would make the bars too small
BOUND = {"compute": "arithmetic", "bandwidth": "weights from memory", "launch": "launches and calls"}


@dataclass(frozen=True)
class Times:
    """Latency in us per stage. where: the source, for the reader; measured: else modelled."""

    where: str
    stages: dict[str, float]
    same: float
    new: float
    measured: bool

    def covers(self, plan: Plan) -> bool:
        """Whether it has the latency of any stage."""
        return any(s.name in self.stages for s in plan.stages)


def times_of(profile: Profile) -> Times:
    series = profile.series
    return Times(f"{profile.machine['cpu']}, {profile.threads or 'all'} thread{'' if profile.threads == 1 else 's'}",
                 {n.removeprefix("stage "): s.median for n, s in series.items() if n.startswith("stage ")},
                 series["same"].median if "same" in series else 0.0,
                 series["new"].median if "new" in series else 0.0, True)


def times_modelled(m: Modelled) -> Times:
    return Times(m.target, {s.stage: s.total for s in m.stages}, m.same, m.new, False)


def speed_of(plan: Plan, stage) -> str:
    """Colour class by the stage's fastest input."""
    updates = {s.value: s.update for s in plan.sources}
    if stage.name in plan.depends_on_carried():
        return "tick"
    if stage.name in plan.looking_back():
        return "observation"
    return max((updates[d] for d in stage.depends), key=ORDER.index, default="static")


def stage_graph(plan: Plan) -> str:
    """Sources, stages with their work, and the action; arrows are the values passed between them."""
    makers = {b.value: s.name for s in plan.stages for b in s.outputs}
    names = {i: v.name for i, v in enumerate(plan.values)}
    roots = {d.output: d.input for d in plan.delays}
    boxes = [Box(f"source {names[s.value]}",
                 (names[s.value].rpartition("observation.")[2], f"{plan.values[s.value].type}",
                  f"new every {s.update}" if s.update != "static" else "fixed"), SPEED[s.update],
                 f"input {names[s.value]}") for s in plan.sources]
    arrows: dict[tuple[str, str], list[int]] = {}
    makers |= dict.fromkeys((c.value for c in plan.carried), "carried")
    if plan.carried:
        size = sum(plan.values[c.value].type.bytes for c in plan.carried)
        lines = f"{len(plan.carried)} carried", f"{_short(size)}B", "of the last step"
        boxes.append(Box("carried", lines, SPEED["tick"], ", ".join(names[c.value] for c in plan.carried)))
    depends = {r["stage"]: r["depends"] for r in stage_rows(plan)}
    sources = {s.value for s in plan.sources}
    for stage in plan.stages:
        lines = [stage.name, f"{_short(stage.flops * stage.iterations)}FLOP", f"{_short(stage.weight_bytes)}B"]
        if stage.iterations > 1:
            lines.append(f"{stage.iterations_text} iterations")
        boxes.append(Box(stage.name, tuple(lines), SPEED[speed_of(plan, stage)],
                         "depends on " + ", ".join(depends[stage.name])))
        for value in dict.fromkeys([*(b.value for b in stage.inputs), *(c.initial for c in stage.carries)]):
            while value in roots:
                value = roots[value]
            begin = f"source {names[value]}" if value in sources else makers.get(value)
            if begin is not None and begin != stage.name:
                arrows.setdefault((begin, stage.name), []).append(value)
    if plan.action is not None and plan.action.value in makers:
        a = plan.action
        boxes.append(Box("action", ("action queue", f"{a.chunk_steps} predicted, {a.execute_steps} executed"), "tick"))
        arrows[makers[a.value], "action"] = [a.value]
    read = {b for b, _ in arrows} | {e for _, e in arrows}
    boxes = [b for b in boxes if b.name in read]
    return graph(boxes, [Arrow(b, e, ", ".join(f"{names[v]} {plan.values[v].type}" for v in values))
                         for (b, e), values in arrows.items()])


def _short(number: float) -> str:
    """Three digits with an SI prefix, e.g. "3.42 G"."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:g} "


def _bars(rows: Sequence[Bar], label: str, unit: str) -> str:
    return at_both_widths(lambda width: bars(rows, label, unit, width))


def pace(plan: Plan, times: Times) -> str:
    """A replan's share of the time that its actions last, if the plan has the rates of its sensors."""
    hz = max((s.clock_hz for s in plan.sources), default=0.0)
    if plan.action is None or not hz or not times.same:
        return ""
    lasts = 1e3 * plan.action.execute_steps / hz
    return (f"Each replan yields {plan.action.execute_steps} actions: at {hz:g} Hz, the rate of the fastest sensor, "
            "they last "
            f"{lasts:.3g} ms, and "
            f"the next replan is {times.same / 10 / lasts:.2g} % of that.")


def timeline(plan: Plan, times: Times) -> str:
    """One replan with a new instruction, stage by stage."""
    return _bars(timeline_rows(plan, times), f"stages of a replan on {times.where}", "ms")


def timeline_rows(plan: Plan, times: Times) -> list[Bar]:
    """Of `timeline`."""
    rows, at = [], 0.0
    for s in plan.stages:
        us = times.stages.get(s.name)
        if us is None:
            continue
        segment = Segment(us / 1e3, speed_of(plan, s), f"{s.name}: {us / 1e3:.3f} ms")
        rows.append(Bar(s.name, (segment,), f"{us / 1e3:.3g} ms", at))
        at += us / 1e3
    return rows


def task_timeline(plan: Plan, times: Times, replans: int = 4) -> str:
    """The first replans of a task: the language stages once, then the stages that depend on observations."""
    kinds = {s.name: speed_of(plan, s) for s in plan.stages}
    rows = []
    for i in range(replans):
        runs = [s.name for s in plan.stages if s.name in times.stages
                and (i == 0 or kinds[s.name] not in ("task", "static"))]
        segments = tuple(Segment(times.stages[n] / 1e3, kinds[n], f"{n}: {times.stages[n] / 1e3:.3f} ms") for n in runs)
        total = sum(s.length for s in segments)
        rows.append(Bar(f"replan {i + 1}" + (", new instruction" if i == 0 else ""), segments, f"{total:.3g} ms"))
    return _bars(rows, "replans of one task", "ms")


def latency_bars(modelled: Sequence[Modelled], bands: Bands) -> list[tuple[str, str]]:
    """Per target and stage, split by bound, with the error band of the total."""
    found = []
    for m in modelled:
        rows = [Bar(s.stage, tuple(Segment(s.times * getattr(s, k) / 1e3, k,
                                           f"{s.stage}, {BOUND[k]}: {s.times * getattr(s, k) / 1e3:.3f} ms")
                                   for k in BOUND if getattr(s, k) > 0), f"{s.total / 1e3:.3g} ms",
                    band=(s.total / 1e3 / bands.time, s.total / 1e3 * bands.time)) for s in m.stages]
        found.append((m.target, _bars(rows, f"modelled latency on {m.target}", "ms")))
    return found


def memory_bars(modelled: Sequence[Modelled], targets: Sequence[Target]) -> str:
    """Memory of the policy on each target, with the board's memory as a mark."""
    rows = []
    for m, t in zip(modelled, targets, strict=True):
        live = m.activations
        context = t.software.context_mb if t.software else 0.0
        pieces = [(m.weights / 1e6, "bandwidth", "weights"), (live / 1e6, "compute", "activations of one stage"),
                  (m.arena / 1e6, "tick", "values between stages"), (context, "static", "CUDA and TensorRT")]
        total = sum(p[0] for p in pieces)
        limit = t.board.memory.usable_bytes / 1e6 if t.board else None
        drawn = tuple(Segment(size, kind, f"{words}: {size:.1f} MB") for size, kind, words in pieces if size)
        rows.append(Bar(m.target.partition("+")[0], drawn,
                        f"{total:.0f} MB" + (f" of {limit:.0f}" if limit else ""), 0.0,
                        limit if limit and limit < FAR * total else None))
    return _bars(rows, "memory", "MB")


def roofline_of(work: Sequence[StageWork], plan: Plan, target: Target) -> str:
    """Every stage at its modelled rate, under the roofs of the schemes that it uses."""
    schemes = sorted({k.scheme for w in work for k in w.kernels})
    roofs = [(s, r.linear_gflops, r.gbps, s) for s in schemes if (r := getattr(target.rates, s, None)) is not None]
    points = []
    for stage, w in zip(plan.stages, work, strict=True):
        stored = sum(k.stored for k in w.kernels)
        us = sum(stage_us(w.kernels, target))
        if stored and us:
            points.append(Point(sum(k.operations for k in w.kernels) / stored,
                                sum(k.operations for k in w.kernels) / us / 1e3,
                                f"{w.stage}: {us / 1e3:.3f} ms per iteration", speed_of(plan, stage)))
    shown = [p for p in points if p.x > 0 and p.y > 0]
    return at_both_widths(lambda width: roofline(roofs, shown, width))


def held_out_bars(checked: Sequence[Checked]) -> str:
    """Modelled over published, one row each."""
    rows = [Bar(c.row.name, (Segment(c.ratio, "compute",
                                     f"modelled {c.modelled:.1f} ms, published {c.row.ms:g} ms ({c.row.source})"),),
                f"{c.ratio:.2f}", 0.0, 1.0) for c in checked]
    return _bars(rows, "modelled over published latency", "")


def precision_rows(plan: Plan) -> list[dict]:
    """Per stage: layers by scheme, bytes, and the layer group with the largest error."""
    rows = []
    for s in plan.stages:
        if s.precisions:
            worst = max(s.precisions, key=lambda p: p.error)
            rows.append({"stage": s.name, "schemes": {k: n for k in SCHEMES
                                                      if (n := sum(p.layers for p in s.precisions if p.scheme == k))},
                         "megabytes": sum(p.bytes for p in s.precisions) / 1e6, "error": worst.error,
                         "group": worst.group,
                         "blocks": s.precisions})
    return rows


def bundle_facts(bundle: Bundle) -> list[tuple[str, str]]:
    plan, origin = bundle.plan, bundle.manifest["provenance"]
    return [("policy", plan.name), *origin.get("origin", {}).items(), ("target", plan.target),
            ("recipe", plan.recipe), ("bundle", f"sha256 {bundle.hash}"),
            ("weights", f"sha256 {origin['weights_sha256']}"), ("size", f"{bundle.bytes / 1e6:.2f} MB"),
            *[(p, v) for p, v in origin["versions"].items()]]
