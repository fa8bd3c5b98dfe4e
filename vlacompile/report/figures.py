"""The report's figures as SVG text: the stage graph, bars, a timeline, a roofline.

Colours are classes of the page's style sheet, so that they follow light and dark. Owns geometry; must not know bundles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import networkx as nx

CHAR, LINE = 7.3, 15  # width of a character and height of a line of 12 px type, px
BROAD, NARROW = 860, 400  # widths of a figure in px: on a screen and on paper; on a phone


@dataclass(frozen=True)
class Box:
    """A node of the graph: its lines of text, the first in bold. kind: a class of the style sheet."""

    name: str
    lines: tuple[str, ...]
    kind: str
    title: str = ""

    @property
    def width(self) -> float:
        return 18 + CHAR * max(map(len, self.lines))

    @property
    def height(self) -> float:
        return 12 + LINE * len(self.lines)


@dataclass(frozen=True)
class Arrow:
    begin: str
    end: str
    title: str


def graph(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> str:
    """Layered from left to right by longest path; within a column ordered by the mean position of predecessors."""
    net = nx.DiGraph()
    net.add_nodes_from(b.name for b in boxes)
    net.add_edges_from((a.begin, a.end) for a in arrows)
    by_name = {b.name: b for b in boxes}
    columns = _columns(net)
    place: dict[str, tuple[float, float]] = {}
    x, height = 8.0, max(sum(by_name[n].height + 16 for n in c) for c in columns)
    for column in columns:
        column.sort(key=lambda n: _mean([place[p][1] for p in net.predecessors(n) if p in place]))
        y = (height - sum(by_name[n].height + 16 for n in column)) / 2 + 16
        for n in column:
            place[n] = x, y
            y += by_name[n].height + 16
        x += max(by_name[n].width for n in column) + 46
    parts = [_arrow(place, by_name, a) for a in arrows] + [_box(by_name[n], *place[n]) for n in place]
    return _svg(x - 38, height + 16, parts, "graph of stages", "natural")


def _columns(net: nx.DiGraph) -> list[list[str]]:
    """Sources first; every other node one column after its last predecessor; sinks at the end."""
    depth: dict[str, int] = {}
    for n in nx.lexicographical_topological_sort(net):
        depth[n] = max((depth[p] + 1 for p in net.predecessors(n)), default=0)
    return [[n for n in depth if depth[n] == d] for d in range(max(depth.values()) + 1)]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _arrow(place: Mapping[str, tuple[float, float]], boxes: Mapping[str, Box], a: Arrow) -> str:
    (x0, y0), (x1, y1) = place[a.begin], place[a.end]
    x0, y0, y1 = x0 + boxes[a.begin].width, y0 + boxes[a.begin].height / 2, y1 + boxes[a.end].height / 2
    bend = max(20.0, (x1 - x0) / 2)
    return (f'<path class="arrow {boxes[a.begin].kind}" marker-end="url(#head)" d="M{x0:.1f},{y0:.1f} '
            f'C{x0 + bend:.1f},{y0:.1f} '
            f'{x1 - bend:.1f},{y1:.1f} {x1 - 4:.1f},{y1:.1f}"><title>{escape(a.title)}</title></path>')


def _box(b: Box, x: float, y: float) -> str:
    text = "".join(f'<text x="{x + 9:.1f}" y="{y + 18 + LINE * i:.1f}" '
                   f'class="{"name" if i == 0 else "small"}">{escape(line)}</text>'
                   for i, line in enumerate(b.lines))
    return (f'<g class="box {b.kind}"><title>{escape(b.title or b.name)}</title><rect x="{x:.1f}" y="{y:.1f}" '
            f'width="{b.width:.1f}" '
            f'height="{b.height:.1f}" rx="5"/>{text}</g>')


def _svg(width: float, height: float, parts: Iterable[str], label: str, size: str = "fitted") -> str:
    head = ('<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" class="head"/></marker></defs>')
    return (f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" class="{size}" '
            f'role="img" '
            f'aria-label="{escape(label)}">{head}{"".join(parts)}</svg>')


def at_both_widths(draw: Callable[[float], str]) -> str:
    """The figure in both widths; the style sheet shows the one that fits."""
    return f'<div class="broad">{draw(BROAD)}</div><div class="narrow">{draw(NARROW)}</div>'


@dataclass(frozen=True)
class Segment:
    """A segment of a bar: length, kind, and tooltip."""

    length: float
    kind: str
    title: str


@dataclass(frozen=True)
class Bar:
    label: str
    segments: tuple[Segment, ...]
    text: str
    start: float = 0.0  # offset, for a timeline
    limit: float | None = None  # a mark, e.g. a budget
    band: tuple[float, float] | None = None  # error band of its end

    @property
    def end(self) -> float:
        return self.start + sum(s.length for s in self.segments)

    @property
    def most(self) -> float:
        return max(self.end, self.limit or 0.0, self.band[1] if self.band else 0.0)


def bars(rows: Sequence[Bar], label: str, unit: str, width: float = BROAD) -> str:
    """Horizontal bars on one scale, with ticks of round numbers below."""
    char = CHAR if width > NARROW else 0.85 * CHAR  # the style sheet uses a smaller font there
    left = 14 + char * max(len(r.label) for r in rows)
    right = 14 + char * max(len(r.text) for r in rows)
    most = max(r.most for r in rows) or 1.0
    scale = (width - left - right) / most
    parts, y = [], 6.0
    bottom = y + 24 * len(rows)
    for t in ticks(most, 6 if width > NARROW else 3):
        x = left + t * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.0f}" y2="{bottom:.0f}"/>')
        if x + char * len(f"{t:g}") / 2 < width - 14 - char * len(unit):  # leaves room for the unit
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 14:.0f}" text-anchor="middle">{t:g}</text>')
    for r in rows:
        parts.append(f'<text class="label" x="{left - 8:.1f}" y="{y + 15:.1f}" '
                     f'text-anchor="end">{escape(r.label)}</text>')
        x = left + r.start * scale
        for s in r.segments:
            parts.append(f'<rect class="seg {s.kind}" x="{x:.1f}" y="{y + 3:.1f}" '
                         f'width="{max(s.length * scale, 0.6):.1f}" '
                         f'height="17"><title>{escape(s.title)}</title></rect>')
            x += s.length * scale
        x += 6
        if r.band is not None:
            low, high = (left + b * scale for b in r.band)
            parts.append(f'<path class="band" d="M{low:.1f},{y + 11.5:.1f} H{high:.1f} M{low:.1f},{y + 8:.1f} v7 '
                         f'M{high:.1f},{y + 8:.1f} v7"/>')
            x = max(x, high + 6)
        if r.limit is not None:
            at = left + r.limit * scale
            parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{y:.1f}" y2="{y + 23:.1f}"/>')
            x = at + 6 if x - 6 < at < x + char * len(r.text) + 4 else x
        parts.append(f'<text class="value" x="{x:.1f}" y="{y + 15:.1f}">{escape(r.text)}</text>')
        y += 24
    parts.append(f'<text class="tick" x="{width - 6:.0f}" y="{bottom + 14:.0f}" text-anchor="end">'
                 f"{escape(unit)}</text>")
    return _svg(width, bottom + 22, parts, label)


def ticks(most: float, count: int = 6) -> list[float]:
    """Round numbers from 0 to `most`: steps of 1, 2 or 5 times a power of ten."""
    step = 10 ** math.floor(math.log10(most / count))
    step = next(step * m for m in (1, 2, 5, 10) if most / (step * m) <= count)
    return [round(i * step, 12) for i in range(int(most / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Point:
    """x: operations per byte of weights; y: 1e9 operations per second."""

    x: float
    y: float
    label: str
    kind: str


def roofline(roofs: Sequence[tuple[str, float, float, str]], points: Sequence[Point], width: float = BROAD,
             height: float = 380) -> str:
    """roofs: (label, 1e9 operations per second, 1e9 bytes per second, class). Both axes logarithmic. Points at the same
    place share a label."""
    xs = [p.x for p in points] + [peak / gbps for _, peak, gbps, _ in roofs]
    ys = [p.y for p in points] + [peak for _, peak, _, _ in roofs]
    x0, x1 = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
    y0, y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    left, bottom = 64.0, height - 40.0
    at_x = lambda v: left + (math.log10(v) - x0) / max(x1 - x0, 1) * (width - left - 16)
    at_y = lambda v: bottom - (math.log10(v) - y0) / max(y1 - y0, 1) * (bottom - 12)
    parts = [f'<line class="grid" x1="{at_x(10**e):.1f}" x2="{at_x(10**e):.1f}" y1="12" y2="{bottom:.0f}"/>'
             f'<text class="tick" x="{at_x(10**e):.1f}" y="{bottom + 16:.0f}" text-anchor="middle">{10**e:g}</text>'
             for e in range(x0, x1 + 1)]
    parts += [f'<line class="grid" x1="{left}" x2="{width - 16:.0f}" y1="{at_y(10**e):.1f}" y2="{at_y(10**e):.1f}"/>'
              f'<text class="tick" x="{left - 8}" y="{at_y(10**e) + 4:.1f}" text-anchor="end">{10**e:g}</text>'
              for e in range(y0, y1 + 1)]
    for label, peak, gbps, kind in roofs:
        low = max(10**x0, 10**y0 / gbps)
        corner = peak / gbps
        path = (f"M{at_x(low):.1f},{at_y(low * gbps):.1f} L{at_x(corner):.1f},{at_y(peak):.1f} "
                f"L{width - 16:.1f},{at_y(peak):.1f}")
        parts.append(f'<path class="roof {kind}" d="{path}"/><text class="label" x="{width - 20:.0f}" '
                     f'y="{at_y(peak) - 5:.1f}" '
                     f'text-anchor="end">{escape(label)}</text>')
    words: list[tuple[float, float, list[str]]] = []
    for p in points:
        x, y = at_x(p.x), at_y(p.y)
        parts.append(f'<circle class="dot {p.kind}" cx="{x:.1f}" cy="{y:.1f}" '
                     f'r="4"><title>{escape(p.label)}</title></circle>')
        near = next((w for w in words if abs(w[0] - x) < 60 and abs(w[1] - y) < 12), None)
        near[2].append(p.label.partition(":")[0]) if near else words.append((x, y, [p.label.partition(":")[0]]))
    for x, y, names in words:
        text = ", ".join(names)
        fits = x + 8 + CHAR * len(text) < width - 16
        anchor = "start" if fits else "end"
        parts.append(f'<text class="small" x="{x + (8 if fits else -8):.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">'
                     f"{escape(text)}</text>")
    parts.append(f'<text class="tick" x="{width - 16:.0f}" y="{height - 6:.0f}" text-anchor="end">operations per byte '
                 f'of weights</text>'
                 f'<text class="tick" x="{left + 6:.0f}" y="{at_y(10**y1) + 16:.0f}">10⁹ operations per second</text>')
    return _svg(width, height, parts, "roofline")
