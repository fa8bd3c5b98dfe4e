"""A routing table for the report: per instruction the plotted posterior of each backbone, and the decision.

Owns the drawing of Beta densities and the rows of the report's routing table. Decides nothing itself: decide.py does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from vlacompile.routing.decide import Belief, Place, decide_at
from vlacompile.routing.table import RoutingTable

KINDS = ("observation", "step", "task", "tick")  # classes of the style sheet, one per backbone
WIDTH, HEIGHT, POINTS = 260.0, 64.0, 400
MOST = 9.0  # density at the top of every plot: 18 successes in 20 episodes reach 6; a sharper peak is clipped
LEVELS = {"task": "its own episodes", "cluster": "similar instructions", "all": "all instructions",
          "prior": "the prior alone"}


def routing_facts(table: RoutingTable) -> dict:
    """The page's data of a table: its backbones with their colours, its rule, a row per instruction."""
    return {"backbones": [(b.name, KINDS[i % len(KINDS)]) for i, b in enumerate(table.backbones)],
            "delta": table.rule.delta, "tau": table.rule.tau, "reference": table.backbones[-1].name,
            "rows": [_row(table, i) for i in range(len(table.routes))], "sources": list(table.sources)}


def _row(table: RoutingTable, index: int) -> dict:
    route = table.routes[index]
    decision = decide_at(table, Place(index, "text" if route.text else "nothing", 1.0))
    name = route.text or ("others of the cluster" if route.cluster is not None else "in no cluster")
    return {"text": name, "listed": bool(route.text), "cluster": route.cluster, "level": LEVELS[decision.level],
            "seen": [f"{e.successes:.4g} of {e.episodes:.4g}" if e.episodes else "none" for e in route.evidence],
            "figure": densities(decision.beliefs, [b.name for b in table.backbones], table.rule.delta),
            "means": [b.mean for b in decision.beliefs],
            "probabilities": [b.probability for b in decision.beliefs[:-1]],
            "cost_ms": decision.beliefs[decision.backbone].cost_ms, "takes": table.backbones[decision.backbone].name,
            "escalated": decision.backbone == len(table.backbones) - 1}


def log_density(belief: Belief, x: float) -> float:
    """Log density of Beta(alpha, beta) at 0 < x < 1."""
    a, b = belief.alpha, belief.beta
    norm = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return (a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - norm


def densities(beliefs: Sequence[Belief], names: Sequence[str], delta: float) -> str:
    """One curve per posterior over the success rate 0..1, all plots on one scale, clipped at MOST; the dashed line is
    the last one's mean minus delta."""
    xs, bottom, top = [(i + 0.5) / POINTS for i in range(POINTS)], HEIGHT - 14, math.log(MOST)
    curves = [[math.exp(min(log_density(b, x), top)) / MOST for x in xs] for b in beliefs]
    parts = [f'<line class="grid" x1="{x:.0f}" x2="{x:.0f}" y1="2" y2="{bottom:.0f}"/>'
             for x in (0.5, WIDTH / 2, WIDTH - 0.5)]
    for i, (belief, name, curve) in enumerate(zip(beliefs, names, curves, strict=True)):
        points = " ".join(f"{x * WIDTH:.1f},{bottom - y * (bottom - 3):.1f}" for x, y in zip(xs, curve, strict=True))
        parts.append(f'<polygon class="density {KINDS[i % len(KINDS)]}" points="0,{bottom:.0f} {points} {WIDTH:.0f},'
                     f'{bottom:.0f}"><title>{escape(name)}: Beta({belief.alpha:.2f}, {belief.beta:.2f}), '
                     f"mean {belief.mean:.3f}</title></polygon>")
    margin = (beliefs[-1].mean - delta) * WIDTH
    if margin > 0:
        parts.append(f'<line class="margin" x1="{margin:.1f}" x2="{margin:.1f}" y1="2" y2="{bottom:.0f}"/>')
    for x, anchor, text in ((0, "start", "0"), (WIDTH / 2, "middle", "0.5"), (WIDTH, "end", "1")):
        parts.append(f'<text class="tick" x="{x:.0f}" y="{HEIGHT - 2:.0f}" text-anchor="{anchor}">{text}</text>')
    label = ", ".join(f"{n} {b.mean:.2f}" for n, b in zip(names, beliefs, strict=True))
    return (f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}" class="fitted" '
            f'role="img" '
            f'aria-label="success: {escape(label)}">{"".join(parts)}</svg>')
