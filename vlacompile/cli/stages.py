"""What a plan does, in rows: its stages, what each depends on, what each input causes to run.

Owns the wording and the arithmetic of shares; `build`, `inspect` and the demo draw the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from vlacompile.plan.plan import Plan


def short_names(names: Sequence[str]) -> dict[str, str]:
    """{name: its shortest dotted ending that no other name shares}."""

    def ending(name: str, parts: int) -> str:
        return ".".join(name.split(".")[-parts:])

    short = {}
    for name in names:
        lengths = range(1, name.count(".") + 2)
        short[name] = next((ending(name, k) for k in lengths if sum(ending(n, k) == ending(name, k) for n in names) == 1),
                           name)
    return short


def stage_rows(plan: Plan) -> list[dict]:
    """One row per stage in execution order. flops: of all iterations; shares: of the whole policy."""
    total_flops = sum(s.flops * s.iterations for s in plan.stages)
    total_bytes = sum(s.weight_bytes for s in plan.stages)
    return [{
        "stage": s.name,
        "depends": [plan.values[v].name for v in s.depends],
        "flops": s.flops * s.iterations,
        "flops_share": _share(s.flops * s.iterations, total_flops),
        "weight_bytes": s.weight_bytes,
        "weight_share": _share(s.weight_bytes, total_bytes),
        "iterations": s.iterations,
    } for s in plan.stages]


def set_rows(plan: Plan) -> list[dict]:
    """One row per dependency set: its stages and their shares together."""
    rows: dict[tuple, dict] = {}
    for s in stage_rows(plan):
        row = rows.setdefault(tuple(s["depends"]), {"depends": s["depends"], "stages": [], "flops": 0,
                                                    "flops_share": 0.0, "weight_bytes": 0, "weight_share": 0.0})
        row["stages"].append(s["stage"])
        for key in ("flops", "flops_share", "weight_bytes", "weight_share"):
            row[key] += s[key]
    return list(rows.values())


def change_rows(plan: Plan) -> list[dict]:
    """One row per source: the stages that run when it alone changed. The others are not touched."""
    rows = stage_rows(plan)
    histories, back = {plan.values[h.source].name for h in plan.histories}, plan.looking_back()
    out = []
    for source in plan.source_names():
        runs = [r for r in rows if source in r["depends"] or (source in histories and r["stage"] in back)]
        out.append({"source": source, "runs": [r["stage"] for r in runs],
                    "kept": [r["stage"] for r in rows if r not in runs],
                    "flops": sum(r["flops"] for r in runs), "flops_share": sum(r["flops_share"] for r in runs)})
    return out


def kept_rows(plan: Plan) -> list[dict]:
    """One row per value that a stage keeps for later ones, and per constant table folded when compiling."""
    maker = {b.value: s.name for s in plan.stages for b in s.outputs}
    ago = {}  # {delayed value: (the value that it was, how many observations ago)}
    for d in plan.delays:
        root, age = ago.get(d.input, (d.input, 0))
        ago[d.output] = root, age + 1
    maker |= {v: f"{maker.get(root, 'the robot')}, {age} ago" for v, (root, age) in ago.items()}
    readers: dict[int, list[str]] = {}
    for s in plan.stages:
        for value in dict.fromkeys([*(b.value for b in s.inputs), *(c.initial for c in s.carries)]):
            if maker.get(value) != s.name:
                readers.setdefault(value, []).append(s.name)
    return [{"value": v.name, "type": str(v.type), "bytes": v.type.bytes, "computed_by": maker.get(i),
             "read_by": readers[i]}
            for i, v in enumerate(plan.values) if i in readers and (i in maker or v.weight is not None)]


def stage_table(plan: Plan) -> Table:
    """Stage, depends on, GFLOP, weights MB, iterations; fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("depends on")
    for title in ("GFLOP", "share", "weights MB", "share", "iter."):
        table.add_column(title, justify="right", no_wrap=True)
    for r in stage_rows(plan):
        table.add_row(r["stage"], depends_text(plan, r["depends"]), gflop(r["flops"]), percent(r["flops_share"]),
                      megabytes(r["weight_bytes"]), percent(r["weight_share"]), str(r["iterations"]))
    return table


def change_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("a new", no_wrap=True)
    table.add_column("runs")
    table.add_column("GFLOP", justify="right", no_wrap=True)
    table.add_column("of all", justify="right", no_wrap=True)
    short = short_names(plan.source_names())
    for r in change_rows(plan):
        table.add_row(short[r["source"]], ", ".join(r["runs"]), gflop(r["flops"]), percent(r["flops_share"]))
    return table


def depends_text(plan: Plan, names: Iterable[str]) -> str:
    names, sources = list(names), plan.source_names()
    if len(names) == len(sources) > 1:
        return "all inputs"
    short = short_names(sources)
    return ", ".join(short[n] for n in names)


def gflop(flops: int) -> str:
    return f"{flops / 1e9:.3f}" if flops >= 1e7 else f"{flops / 1e9:.5f}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}" if size >= 1e4 else f"{size / 1e6:.4f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
