"""The atlas of the survey's systems, from profiles/atlas: a table for docs/atlas.md and the page docs/atlas.html."""

from __future__ import annotations

import json
from collections.abc import Iterator

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from docs.figures import MISSING, ROOT, table
from vlacompile.hardware.target import load_target
from vlacompile.report.figures import Arrow, Box, graph

PAGE, TEMPLATE = ROOT / "docs" / "atlas.html", "atlas_page.html"
RECORDED = ROOT / "profiles" / "atlas"
NAMES = {"orin-nano-4gb": "Nano 4 GB", "orin-nano-8gb": "Nano 8 GB", "orin-nx-8gb": "NX 8 GB",
         "orin-nx-16gb": "NX 16 GB", "agx-orin-64gb": "AGX 64 GB"}
ORDER = ("fp32", "fp16", "int8", "int4")


def boards() -> dict[str, str]:
    """{target: its name and power mode}: a board in a saving mode is slower than a smaller one in its fastest."""
    return {target: f"{name}, {load_target(target).power.name.upper()}" for target, name in NAMES.items()}


def systems() -> list[dict]:
    """The recorded plans in the order of the survey."""
    files = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(RECORDED.glob("*.json"))]
    return sorted(files, key=lambda s: (s["number"], s["name"]))


def precision(board: dict) -> str:
    """Schemes by share of the weights' bytes, the largest first."""
    return "+".join(sorted((s for s, size in board["weights"].items() if size), key=lambda s: -board["weights"][s]))


def saved(board: dict) -> float | None:
    """The part of a replan's modelled time that stays cached while the instruction stays."""
    latency = board["latency"]
    return None if latency is None else 1 - latency["same_instruction_ms"] / latency["new_instruction_ms"]


def milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def loop(system: dict) -> str:
    counts = sorted({s["iterations"] for s in system["stages"] if s["iterations"] > 1}, reverse=True)
    return ", ".join(f"x{c}" for c in counts) or "none"


def _cell(board: dict) -> str:
    if not board["fits"]:
        return f"no, {-board['spare_bytes'] / 1e6:.0f} MB short"
    latency = board["latency"]
    how = f"{precision(board)}, {board['spare_bytes'] / 1e6:.0f} MB spare"
    if latency is None:
        return f"loaded per replan ({how})"
    return f"**{milliseconds(latency['same_instruction_ms'])}** ms, {latency['joules']:.2g} J ({how})"


def atlas() -> str:
    found = systems()
    if not found:
        return MISSING
    rows = [[s["title"] if s["name"].count("-") == 0 else f"{s['title']}, `{s['name']}`",
             "reconstruction" if s["reconstruction"] else "published code", f"{s['parameters']['all'] / 1e6:,.0f}",
             len(s["stages"]), loop(s), _saved_text(s), *(_cell(s["boards"][b]) for b in NAMES)] for s in found]
    titles = ["system", "graph from", "parameters, M", "stages", "loops", "cached per task", *boards().values()]
    seconds = sum(s["seconds"] for s in found)
    return table(titles, rows,
                 f"{len({s['number'] for s in found})} systems of the survey in {len(found)} variants, planned in "
                 f"{seconds / 60:.0f} min without weights. In bold: a replan with the instruction of the one before, "
                 f"modelled within a factor of {found[0]['error_factor']:.2f}, and its energy: of the module with its "
                 f"memory, within {energy_factor(found):.2f}, extrapolated to boards and modes whose power nobody "
                 'published; "cached per task": the part of the time of a replan with a new instruction that the '
                 "others do not take, on the largest board.")


def energy_factor(found: list[dict]) -> float:
    """The largest error of a recorded energy, either way."""
    return max((b["latency"]["joules_factor"] for s in found for b in s["boards"].values() if b["latency"]),
               default=0.0)


def _saved_text(system: dict) -> str:
    share = saved(system["boards"]["agx-orin-64gb"])
    return "" if share is None else f"{100 * share:.0f} %"


def page() -> str:
    environment = Environment(loader=FileSystemLoader(ROOT / "docs"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    found = systems()
    return environment.get_template(TEMPLATE).render(
        systems=found, rows=list(_rows(found)), boards=boards(), graphs={s["name"]: _graph(s) for s in found},
        factor=found[0]["error_factor"] if found else 0.0, energy=energy_factor(found), loop=loop)


def _rows(found: list[dict]) -> Iterator[dict]:
    """One per system and board; numbers stay numbers, so that they sort."""
    for s in found:
        for name, short in boards().items():
            b = s["boards"][name]
            latency = b["latency"] or {}
            share = saved(b)
            yield {
                "name": s["name"], "title": s["title"], "number": s["number"], "board": short,
                "parameters": s["parameters"]["all"] / 1e6, "fits": b["fits"], "precision": precision(b),
                "spare": b["spare_bytes"] / 1e6, "same": latency.get("same_instruction_ms"),
                "new": latency.get("new_instruction_ms"), "joules": latency.get("joules"),
                "watts": latency.get("watts"),
                "rate": latency.get("actions_per_s"), "executed": latency.get("executed"),
                "saved": None if share is None else 100 * share, "swap": b["swap_bytes"] / 1e6,
                "published": [p for p in s["published"] if p["what"] in ("latency", "rate")]}


def _graph(system: dict) -> str:
    boxes = [Box(f"source {name}", (name, f"new every {update}" if update != "static" else "fixed"), update,
                 f"input {name}") for name, update in system["sources"].items()]
    for s in system["stages"]:
        lines = [s["stage"], f"{s['flops'] / 1e9:.3g} GFLOP", f"{s['parameters'] / 1e6:.3g} M weights"]
        lines += [f"{s['iterations']} iterations"] if s["iterations"] > 1 else []
        boxes.append(Box(s["stage"], tuple(lines), s["speed"], "depends on " + ", ".join(s["sources"])))
    arrows = [Arrow(*a) for a in system["arrows"]]
    read = {a.begin for a in arrows} | {a.end for a in arrows}
    return graph([b for b in boxes if b.name in read], arrows)
