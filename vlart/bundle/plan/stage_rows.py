"""What a plan does, in rows: its stages, what each depends on, what each input causes to run.

Owns the wording and the arithmetic of shares; the command line, the report and the demo draw the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vlart.bundle.plan.plan import Plan

NAMED = 3  # carried values that a stage depends on; more are counted


def short_names(names: Sequence[str]) -> dict[str, str]:
    """{name: its shortest dotted ending that no other name shares, alone or behind its first part}."""

    def ending(name: str, parts: int, first: bool) -> str:
        words = name.split(".")
        return ".".join(words[:1] * (first and parts < len(words)) + words[-parts:])

    short = {}
    for name in names:
        ways = [(k, first) for k in range(1, name.count(".") + 2) for first in (False, True)]
        short[name] = next((ending(name, *way) for way in ways
                            if sum(ending(n, *way) == ending(name, *way) for n in names) == 1),
                           name)
    return short


def stage_rows(plan: Plan) -> list[dict]:
    """One row per stage in execution order. flops: of all iterations; shares: of the whole policy."""
    total_flops = sum(s.flops * s.iterations for s in plan.stages)
    total_bytes = sum(s.weight_bytes for s in plan.stages)
    carried = plan.depends_on_carried()
    return [{
        "stage": s.name,
        "depends": [*(plan.values[v].name for v in s.depends), *carried.get(s.name, ())],
        "flops": s.flops * s.iterations,
        "flops_share": _share(s.flops * s.iterations, total_flops),
        "weight_bytes": s.weight_bytes,
        "weight_share": _share(s.weight_bytes, total_bytes),
        "iterations": s.iterations,
        "backbones": list(plan.served_by(s)),
    } for s in plan.stages]


def backbone_rows(plan: Plan) -> list[dict]:
    """One row per backbone: its stages, what it computes when everything is new and the bytes that it reads; of those
    the ones of which another backbone has nothing."""
    rows = []
    for backbone in plan.backbones:
        serving = [r for r in stage_rows(plan) if backbone.name in r["backbones"]]
        own = [r for r in serving if r["backbones"] == [backbone.name]]
        rows.append({"backbone": backbone.name, "output": plan.values[backbone.value].name,
                     "stages": [r["stage"] for r in serving], "own": [r["stage"] for r in own],
                     **{key: sum(r[key] for r in serving) for key in ("flops", "weight_bytes")},
                     **{f"own_{key}": sum(r[key] for r in own) for key in ("flops", "weight_bytes")}})
    return rows


def text_rows(plan: Plan) -> list[dict]:
    """One row per length of the text that the policy is compiled for: the backbone that reads so many tokens, its
    stages that no other length has. Empty for a policy of one length."""
    if not plan.buckets:
        return []
    return [{"tokens": bucket.length, "backbone": row["backbone"], "own": row["own"],
             "own_flops": row["own_flops"], "flops": row["flops"]}
            for bucket, row in zip(plan.buckets, backbone_rows(plan), strict=True)]


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
    """One row per source: the stages that a step runs when it alone changed. The others are not touched."""
    rows, always = stage_rows(plan), plan.depends_on_carried()
    histories, back = {plan.values[h.source].name for h in plan.histories}, plan.looking_back()
    out = []
    for source in plan.source_names():
        runs = [r for r in rows if source in r["depends"] or (source in histories and r["stage"] in back)
                or r["stage"] in always]
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
    maker |= {c.value: f"{maker[c.next]}, in the last step" for c in plan.carried}
    readers: dict[int, list[str]] = {}
    for s in plan.stages:
        for value in dict.fromkeys([*(b.value for b in s.inputs), *(c.initial for c in s.carries)]):
            if maker.get(value) != s.name:
                readers.setdefault(value, []).append(s.name)
    return [{"value": v.name, "type": str(v.type), "bytes": v.type.bytes, "computed_by": maker.get(i),
             "read_by": readers[i]}
            for i, v in enumerate(plan.values) if i in readers and (i in maker or v.weight is not None)]


def depends_text(plan: Plan, names: Iterable[str]) -> str:
    return depends_words(list(names), plan.source_names(), [plan.values[c.value].name for c in plan.carried])


def depends_words(names: Sequence[str], sources: Sequence[str], carried: Sequence[str]) -> str:
    """names: what a stage depends on, of all sources and of all that is carried from step to step."""
    every, kept = [*sources, *carried], [n for n in names if n in carried]
    if len(names) == len(every) > 1:
        return "all inputs"
    short = short_names(every)
    words = [short[n] for n in names if n not in carried]
    if len(kept) > NAMED:
        return ", ".join([*words, f"{len(kept)} carried values"])
    return ", ".join([*words, *(short[n] for n in kept)])


def gflop(flops: int) -> str:
    return f"{flops / 1e9:.3f}" if flops >= 1e7 else f"{flops / 1e9:.5f}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}" if size >= 1e4 else f"{size / 1e6:.4f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
