"""The picture of README.md, from profiles/host/demo.json alone: the stages of the shipped heavy policy, how often each
ran, and what a replan then takes."""

from __future__ import annotations

from html import escape

from docs.figures import ROOT, figures_of

FILE = ROOT / "docs" / "images" / "stages.svg"
# source of the shipped policy: how often it changes, as its Policy declares it
SOURCES = {"tokens": "task", "attention_mask": "task", "agentview": "observation", "wrist": "observation",
           "state": "observation"}
WIDTH, BOX, ROW, TOP = 900, (150, 46), 64, 64
COLUMNS = (20, 250, 480, 710)  # left edges: sources, then stages by how many stages lie before them
FILL = {"task": ("#fdf0d5", "#b7791f"), "observation": ("#dbeafe", "#1d4ed8")}
INK, FAINT = "#1f2937", "#6b7280"
BARS = (("pytorch", "eager PyTorch"), ("libvlart_nothing_kept", "libvlart, every stage every time"),
        ("libvlart", "libvlart, stages with a changed input"))


def svg() -> str:
    """The file's content; equal figures give equal bytes."""
    figures = figures_of("profiles/host/demo.json")["heavy"]
    needs = {s["stage"]: set(SOURCES) if s["depends"] == "all inputs" else set(s["depends"].split(", "))
             for s in figures["stages"]}
    reads = {name: _readers(name, needs) for name in needs}
    place = _places(needs, reads)
    parts = [_text(20, 30, f"{figures['policy']}: how often each stage ran, {figures['observations']} observations of "
                   f"{figures['episodes']} tasks", 15, INK, bold=True)]
    for name, before in reads.items():
        covered = set().union(*(needs[b] for b in before)) if before else set()
        inputs = [_input(s) for s in SOURCES if s in needs[name] - covered]
        parts += [_edge(place[b], place[name]) for b in (*before, *inputs)]
    parts += [_box(place[_input(s)], s, f"new per {update}", *FILL[update], rounded=22)
              for s, update in SOURCES.items()]
    for stage in figures["stages"]:
        rare = all(SOURCES[s] == "task" for s in needs[stage["stage"]])
        parts.append(_box(place[stage["stage"]], stage["stage"],
                          f"ran {stage['runs']} of {figures['observations']}, {stage['median_ms']:.2f} ms",
                          *FILL["task" if rare else "observation"]))
    base = TOP + ROW * len(SOURCES) + 24
    parts += _bars(figures["replan_ms"], base)
    height = base + 34 * len(BARS) + 44
    where = figures["machine"]
    about = (f"Median time of one replan; {figures['episodes']} of {figures['observations']} have a new instruction. "
             f"{figures['threads']} thread, {where['cpu']}, torch {where['versions']['torch']}, onnxruntime "
             f"{where['versions']['onnxruntime']}.")
    parts.append(_text(20, height - 16, about, 12, FAINT))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            'font-family="Helvetica, Arial, sans-serif">\n'
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def _readers(name: str, needs: dict[str, set[str]]) -> list[str]:
    """Stages right below `name` in the order of dependency sets: what it can read without going through another."""
    below = [n for n, s in needs.items() if s < needs[name]]
    return [n for n in below if not any(needs[n] < needs[m] for m in below)]


def _input(source: str) -> str:
    """A key of its own: a stage may be called as its source is."""
    return f"source {source}"


def _places(needs: dict[str, set[str]], reads: dict[str, list[str]]) -> dict[str, tuple[float, float]]:
    """{source or stage: left upper corner}; stages stand beside the middle of what they read."""
    rows = {_input(source): float(i) for i, source in enumerate(SOURCES)}
    column = dict.fromkeys(rows, 0)
    for name in sorted(needs, key=lambda n: len(needs[n])):
        column[name] = 1 + max((column[b] for b in reads[name]), default=0)
        near = [rows[b] for b in reads[name]] or [rows[_input(s)] for s in needs[name]]
        rows[name] = sum(near) / len(near)
    return {n: (COLUMNS[column[n]], TOP + ROW * rows[n]) for n in rows}


def _box(at: tuple[float, float], title: str, below: str, fill: str, line: str, rounded: int = 4) -> str:
    (x, y), (w, h) = at, BOX
    return (f'<rect x="{x}" y="{y:g}" width="{w}" height="{h}" rx="{rounded}" fill="{fill}" stroke="{line}"/>'
            + _text(x + w / 2, y + 19, title, 14, INK, "middle", bold=True)
            + _text(x + w / 2, y + 36, below, 12, INK, "middle"))


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    x0, y0, x1, y1 = start[0] + BOX[0], start[1] + BOX[1] / 2, end[0], end[1] + BOX[1] / 2
    middle = (x0 + x1) / 2 if x1 - x0 < 200 else x1 - 40
    return (f'<path d="M{x0} {y0:g} C{middle} {y0:g} {middle} {y1:g} {x1} {y1:g}" fill="none" stroke="#9ca3af" '
            'stroke-width="1.5"/>')


def _bars(replan: dict[str, dict], top: float) -> list[str]:
    longest = max(replan[name]["median"] for name, _ in BARS)
    parts = []
    for i, (name, label) in enumerate(BARS):
        ms, y, colour = replan[name]["median"], top + 34 * i, "#1d4ed8" if name == "libvlart" else "#9ca3af"
        width = 480 * ms / longest
        parts += [_text(270, y + 17, label, 13, INK, "end"),
                  f'<rect x="280" y="{y:g}" width="{width:.1f}" height="24" rx="2" fill="{colour}"/>',
                  _text(288 + width, y + 17, f"{ms:.1f} ms (p90 {replan[name]['p90']:.1f})", 13, INK)]
    return parts


def _text(x: float, y: float, words: str, size: int, colour: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(words)}</text>")
