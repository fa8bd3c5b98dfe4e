"""Replayed episodes as one SVG: a row per dimension of the action; on the left the first action of each chunk, on the
right the actions that come out of the queue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from vlacompile.episodes.replay import EpisodeReplay
from vlacompile.report.figures import ticks

WIDTH, PANEL, ROW, GAP, LEFT, TOP = 1000, 400, 96, 26, 78, 64
INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
# recorded lies below, the bundle's dashes above PyTorch's line: where they agree, both show
STYLES = {"recorded": 'stroke="#9ca3af" stroke-width="4"', "PyTorch": 'stroke="#1d4ed8" stroke-width="2"',
          "bundle": 'stroke="#ea580c" stroke-width="1.6" stroke-dasharray="5 4"'}


def picture(title: str, episodes: Sequence[EpisodeReplay], names: Sequence[str], fps: float, consumption: str) -> str:
    """The file's content. consumption: how actions come out of the queue, in words."""
    parts, y = [_text(20, 28, title, 16, INK, bold=True), *_legend(episodes)], float(TOP)
    for e in episodes:
        parts.append(_text(20, y + 16, _short(f"episode {e.index}: {e.task}"), 14, INK, bold=True))
        parts.append(_text(LEFT, y + 36, "first action of each chunk", 12, FAINT))
        parts.append(_text(LEFT + PANEL + 60, y + 36, f"executed: {consumption}", 12, FAINT))
        y += 44
        for d, name in enumerate(names):
            parts += _row(e, d, name, fps, y)
            y += ROW + GAP
        y += 14
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}" '
            'font-family="Helvetica, Arial, sans-serif">\n'
            f'<rect width="{WIDTH}" height="{y:.0f}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def _legend(episodes: Sequence[EpisodeReplay]) -> list[str]:
    parts, x = [], 20.0
    for name, style in STYLES.items():
        if name == "PyTorch" and all(e.policy is None for e in episodes):
            continue
        parts.append(f'<line x1="{x:.0f}" x2="{x + 34:.0f}" y1="46" y2="46" {style}/>')
        parts.append(_text(x + 42, 50, name, 12, INK))
        x += 130
    return parts


def _row(e: EpisodeReplay, d: int, name: str, fps: float, y: float) -> list[str]:
    every = np.arange(len(e.recorded))
    columns = []
    for part, frames in (("first", np.array(e.inferred)), ("executed", every)):
        curves = {"recorded": (every, e.recorded[:, d])}
        if e.policy is not None:
            curves["PyTorch"] = frames, getattr(e.policy, part)[frames, d]
        columns.append(curves | {"bundle": (frames, getattr(e.bundle, part)[frames, d])})
    known = np.concatenate([v for curves in columns for _, v in curves.values()])
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    parts = [_text(LEFT - 10, y + ROW / 2 + 4, _short(name, 9), 12, INK, "end", bold=True, title=name)]
    for i, curves in enumerate(columns):
        left = LEFT + i * (PANEL + 60)
        parts += _panel(curves, left, y, (low, high), len(every), fps)
    return parts


def _panel(curves: dict, left: float, y: float, bounds: tuple[float, float], frames: int, fps: float) -> list[str]:
    low, high = bounds
    last = max(frames - 1, 1)
    at_x = lambda frame: left + frame / last * PANEL
    at_y = lambda value: y + ROW - (value - low) / (high - low) * ROW
    parts = [f'<rect x="{left:.0f}" y="{y:.0f}" width="{PANEL}" height="{ROW}" fill="none" stroke="{GRID}"/>']
    for second in ticks(last / fps, 6):
        x = at_x(second * fps)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y:.0f}" y2="{y + ROW:.0f}" stroke="{GRID}"/>')
        parts.append(_text(x, y + ROW + 13, f"{second:g} s", 10, FAINT, "middle"))
    parts += [_text(left + PANEL + 4, y + at, f"{value:.3g}", 10, FAINT) for at, value in ((9, high), (ROW, low))]
    for name, (at, values) in curves.items():
        parts.append(f'<path fill="none" stroke-linejoin="round" {STYLES[name]} '
                     f'd="{_line([at_x(f) for f in at], [at_y(v) for v in values])}"/>')
    return parts


def _line(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Broken where there is no number; a number alone is a short dash."""
    out, drawing = [], False
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if not math.isfinite(y):
            drawing = False
            continue
        out.append(f"{'L' if drawing else 'M'}{x:.1f},{y:.1f}")
        if not drawing and (i + 1 == len(ys) or not math.isfinite(ys[i + 1])):
            out.append("h2")
        drawing = True
    return " ".join(out)


def _short(text: str, most: int = 110) -> str:
    return text if len(text) <= most else text[:most - 1] + "…"


def _text(x: float, y: float, text: str, size: int, fill: str, anchor: str = "start", bold: bool = False,
          title: str = "") -> str:
    weight = ' font-weight="bold"' if bold else ""
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>'
            f"{hint}{escape(text)}</text>")
