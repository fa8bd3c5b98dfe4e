"""Facts and figures -> one self-contained page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from vlacompile.hardware.target import Target
from vlacompile.profile.kernel_work import StageWork
from vlacompile.profile.measure import SIGNIFICANT, Profile, compare_profiles
from vlacompile.profile.power import EXTRAPOLATED_FACTOR, FITTED_FACTOR
from vlacompile.profile.published import bands, held_out
from vlacompile.profile.roofline import Modelled
from vlacompile.report import facts as gather
from vlacompile.report.emission_rows import known_by, rule_rows, unfused_rows
from vlacompile.report.posteriors import routing_facts
from vlacompile.report.tvm_stages import compiled_rows, kernel_rows
from vlacompile.routing.table import RoutingTable
from vlart.bundle.directory import Bundle
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.stage_rows import change_rows, depends_text, kept_rows, short_names, stage_rows
from vlart.bundle.precision_record import carried_lines, error_lines, precision_of, rotation_lines
from vlart.files.atomic import write_file
from vlart.verify.replay import ParityReport

MOST_KEPT = 24
SERIES = {"same": "replan, same instruction", "new": "replan, new instruction", "write": "input copy",
          "pop": "pop of one action"}


def page(bundle: Bundle, work: Sequence[StageWork], modelled: Sequence[Modelled], targets: Sequence[Target],
         profiles: Sequence[Profile], parity: ParityReport | None, check: Mapping | None = None,
         routing: RoutingTable | None = None, otherwise: Mapping[str, Modelled] | None = None, live: str = "",
         lengths: Sequence[Mapping] = ()) -> str:
    """The whole page as HTML. modelled, targets: boards, in parallel; profiles: measurements of this bundle;
    check: the record of `vlacompile check --record`; routing: a table, in which this policy may be one of the
    backbones; otherwise: {description: what if} on the first target; live: HTML that stands above all of it;
    lengths: of the text, as modelled_lengths() gives them of the whole bundle."""
    plan, origin = bundle.plan, bundle.manifest["provenance"]
    times = [gather.times_of(p) for p in profiles] + [gather.times_modelled(m) for m in modelled[:1]]
    short = short_names(plan.source_names())
    names, factors = _names(profiles), bands()
    iterations = {s.name: s.iterations for s in plan.stages}
    unfused = unfused_rows(origin, iterations)
    content = {
        "name": plan.name, "target": plan.target, "recipe": plan.recipe, "graph": gather.stage_graph(plan),
        "cards": _cards(bundle, modelled, profiles, parity, factors.time),
        "stages": [r | {"depends": depends_text(plan, r["depends"])} for r in stage_rows(plan)],
        "changes": [r | {"source": short[r["source"]]} for r in change_rows(plan)],
        "kept": sorted(kept_rows(plan), key=lambda r: -r["bytes"])[:MOST_KEPT], "notes": _notes(origin["notes"]),
        "measured": [_measured(p, name, plan) for p, name in zip(profiles, names, strict=True)],
        "differences": [_difference(profiles[0], p, names[0], name)
                        for p, name in list(zip(profiles, names, strict=True))[1:]],
        "timelines": [(name, "measured" if t.measured else "modelled", gather.timeline(plan, t),
                       gather.task_timeline(plan, t), gather.pace(plan, t))
                      for t, name in zip(times, [*names, *(m.target for m in modelled[:1])], strict=True)
                      if t.covers(plan)],
        "latency": gather.latency_bars(modelled, factors), "boards": modelled, "bands": factors,
        "otherwise": dict(otherwise or {}), "power": {"fitted": FITTED_FACTOR, "elsewhere": EXTRAPOLATED_FACTOR},
        "memory": gather.memory_bars(modelled, targets) if modelled else "",
        "roofline": gather.roofline_of(work, plan, targets[0]) if modelled else "",
        "held_out": gather.held_out_bars(held_out()) if modelled else "", "held_out_rows": held_out(),
        "precisions": gather.precision_rows(plan), "precision_lines": _precision_lines(bundle),
        "recorded": origin.get("recorded_observations", 1) > 0,
        "parity": parity.values if parity else (), "passed": parity and parity.passed,
        "check": check, "routing": routing and routing_facts(routing),
        "stand_in": any(s.backend == "tensorrt" for s in plan.stages),
        "staged": sorted(origin["staged_parity"].items()), "facts": gather.bundle_facts(bundle),
        "live": live, "compiled": compiled_rows(origin), "kernels": kernel_rows(origin),
        "lengths": lengths,
        "rules": rule_rows(origin, iterations), "attentions": unfused, "known_by": known_by(unfused),
        "recipe_rows": list(_flat(origin["recipe"])),
    }
    environment = Environment(loader=PackageLoader("vlacompile.report", "."), autoescape=True,
                              undefined=StrictUndefined,
                              trim_blocks=True)
    return environment.get_template("page.html").render(content)


def write_page(text: str, path: Path) -> None:
    """Atomic: the old file stays until the new page is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())


def _cards(bundle: Bundle, modelled: Sequence[Modelled], profiles: Sequence[Profile], parity: ParityReport | None,
           off: float) -> list[tuple[str, str]]:
    plan = bundle.plan
    cards = [(f"{sum(s.weight_bytes for s in plan.stages) / 1e6:.1f} MB", "weights that the stages read"),
             (f"{sum(s.flops * s.iterations for s in plan.stages) / 1e9:.3g} GFLOP",
              "per replan with a new instruction")]
    cards += [(f"{p.series['same'].median / 1e3:.2f} ms", "a replan, measured") for p in profiles[:1]
              if "same" in p.series]
    cards += [(f"{m.same / 1e3:.2f} ms",
               f"a replan, modelled for {m.target.partition('+')[0]} ({m.same / off / 1e3:.2f} to "
               f"{m.same * off / 1e3:.2f})") for m in modelled[:2]]
    if parity is not None:
        cards.append(("passed" if parity.passed else "failed", f"{parity.frames} golden frames"))
    return cards


def _notes(notes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Notes grouped by their pass, in order."""
    groups: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        who, _, what = note.partition(": ")
        groups[who].append(what)
    return list(groups.items())


def _precision_lines(bundle: Bundle) -> list[str]:
    """The precision requested, applied and measured, in the compiler's wording."""
    found = precision_of(bundle.manifest["provenance"])
    return [] if found is None else [f"{bundle.plan.recipe} was asked", *carried_lines(found), *rotation_lines(found),
                                     *error_lines(found)]


def _engine(machine: Mapping) -> str:
    version = machine["versions"].get("onnxruntime")
    return f"onnxruntime {version}" if version else "by vlart-run"


def _names(profiles: Sequence[Profile]) -> list[str]:
    """Where each was measured; numbered if the same place occurs more than once."""
    where = [gather.times_of(p).where for p in profiles]
    return [f"{w}, measurement {where[:i].count(w) + 1}" if where.count(w) > 1 else w for i, w in enumerate(where)]


def _difference(first: Profile, second: Profile, first_name: str, second_name: str) -> dict:
    found = compare_profiles(first, second)
    rows = [{"words": SERIES.get(d.series, d.series.removeprefix("stage ")), "first": d.first / 1e3,
             "second": d.second / 1e3,
             "ratio": d.ratio, "p": d.p,
             "verdict": "may be chance" if d.p > SIGNIFICANT else "slower" if d.ratio > 1 else "faster"}
            for d in found]
    return {"first": first_name, "second": second_name, "rows": rows, "same_machine": first.machine == second.machine,
            "turns": bool(found) and all(d.turns for d in found)}


def _measured(p: Profile, name: str, plan: Plan) -> dict:
    words = SERIES | {f"stage {s.name}": f"{s.name}, {s.iterations_text} iterations" for s in plan.stages
                      if s.iterations > 1}
    rows = [{"words": words.get(n, n.removeprefix("stage ")), "count": len(s.us), "median": s.median / 1e3,
             "p95": s.at(0.95) / 1e3,
             "p99": s.at(0.99) / 1e3, "max": max(s.us) / 1e3} for n, s in p.series.items()]
    machine = p.machine
    note = (f"{p.replans} replans after {p.warm_up} warm-up replans;  {machine['cores']} cores, "
            f"{machine['memory_gb']} GB, "
            f"{_engine(machine)}.")
    if words := p.fared():
        note += f" The board: {words}."
    if p.alternated:
        note += " Measured in alternating rounds with another bundle."
    for stage, mean in p.iterations.items():
        note += f" {stage}: {mean:.3g} iterations in the mean."
    if p.unchanged:
        note += f" Never changed: {', '.join(p.unchanged)}."
    return {"where": name, "rows": rows, "note": note}


def _flat(values: Mapping, where: str = ""):
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value
