"""Tables of `inspect`: which rules of emission fired, and what crosses between stages in f32 or fp16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST = 12  # edges that are shown; --json has all


def rule_rows(provenance: Mapping) -> list[tuple[str, str, str]]:
    """(key of the recipe that turns it off, how often in which stages, what it is worth)."""
    rows: dict[str, tuple[list[str], str]] = {}
    for fired in provenance.get("emission", ()):
        where, _ = rows.setdefault(fired["rule"], ([], fired["worth"]))
        where.append(f"{fired['count']} in {fired['stage']}")
    found = [(rule, ", ".join(where), worth) for rule, (where, worth) in rows.items()]
    narrow = [b for b in provenance.get("boundaries", ()) if not b["why"]]
    return found + ([("precision.fp16_values", f"{len(narrow)} values", _worth(narrow, provenance))] if narrow else [])


def _worth(narrow: Sequence[Mapping], provenance: Mapping) -> str:
    """By the model: half of the bytes are written and read less, at the target's rate."""
    saved = sum(b["bytes"] // 2 for b in narrow)
    casts = sum(b["casts"] - b["added"] for b in narrow)
    rates = ((provenance.get("target") or {}).get("rates") or {}).get("fp16")
    time = f", modelled {2 * saved / rates['gbps'] / 1e3:.1f} us of writing and reading" if rates else ""
    return f"{saved / 1e3:.1f} kB less{time}, {casts} casts less"


def attention_rows(provenance: Mapping, iterations: Mapping[str, int]) -> list[tuple[str, ...]]:
    """(stage, how many, heads x queries x keys x width, whether it is fused, modelled ms of a replan): attentions that
    are alike in one row. iterations: {stage: how often it runs}. The time is that of logits that are written and read
    twice; of one that is fused but may be slow, the most that is to be gained."""
    alike: dict[tuple, int] = {}
    for a in provenance.get("attentions", ()):
        shape = f"{a['heads']}x{a['queries']}x{a['keys']}x{a['width']}"
        key = a["stage"], shape, tuple(a["obstacles"]), tuple(a["doubts"]), a["logits_bytes"]
        alike[key] = alike.get(key, 0) + 1
    rates = ((provenance.get("target") or {}).get("rates") or {}).get("fp16")
    rows = []
    for (stage, shape, obstacles, doubts, size), count in alike.items():
        said = f"no: {', '.join(obstacles)}" if obstacles else f"yes; {', '.join(doubts)}" if doubts else "yes"
        us = 0.0 if rates is None else count * iterations.get(stage, 1) * 4 * size / rates["gbps"] / 1e3
        time = f"{us / 1e3:.2f}" if obstacles else f"up to {us / 1e3:.2f}" if doubts else "-"
        rows.append((stage, str(count), shape, said, time))
    return rows


def boundary_rows(provenance: Mapping) -> list[tuple[str, ...]]:
    """(value, from, to, type, bytes, casts that left), the largest first; what stays in f32 says why instead."""
    rows = sorted(provenance.get("boundaries", ()), key=lambda b: -b["bytes"])
    found = [(b["value"], b["producer"], ", ".join(b["readers"]), "f32" if b["why"] else "fp16",
              str(b["bytes"] if b["why"] else b["bytes"] // 2), "-" if b["why"] else str(b["casts"] - b["added"]))
             for b in rows[:MOST]]
    return found + ([(f"and {len(rows) - MOST} smaller", *[""] * 5)] if len(rows) > MOST else [])
