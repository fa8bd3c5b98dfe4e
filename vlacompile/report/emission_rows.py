"""Tables of `inspect`, `plan` and the report: which rules of emission fired, which attentions are not fused, and what
crosses between stages in f32 or fp16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST = 12  # edges that are shown; --json has all


KNOWN_BY = {"obstacles": "trial with TensorRT-RTX 1.7.1 for SM86",
            "doubts": "a public log of TensorRT 10.16 on Orin Nano, where another attention took 0.48 ms for 0.71"}


def rule_rows(provenance: Mapping, iterations: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """(key of the recipe that turns it off, how often in which stages, what it is worth: as others published, and of a
    replan by the model). iterations: {stage: how often it runs}."""
    rows: dict[str, tuple[list[str], str, float]] = {}
    rates = _rates(provenance)
    for fired in provenance.get("emission", ()):
        where, worth, us = rows.get(fired["rule"], ([], fired["worth"], 0.0))
        where.append(f"{fired['count']} in {fired['stage']}")
        rows[fired["rule"]] = where, worth, us + iterations.get(fired["stage"], 1) * _saved_us(fired, rates)
    found = [(rule, ", ".join(where), f"{worth}; modelled {us / 1e3:.3g} ms of a replan less" if us > 0 else worth)
             for rule, (where, worth, us) in rows.items()]
    narrow = [b for b in provenance.get("boundaries", ()) if not b["why"]]
    return found + ([("precision.fp16_values", f"{len(narrow)} values", _worth(narrow, provenance))] if narrow else [])


def _rates(provenance: Mapping) -> Mapping | None:
    """The target's, of fp16."""
    return ((provenance.get("target") or {}).get("rates") or {}).get("fp16")


def _saved_us(fired: Mapping, rates: Mapping | None) -> float:
    """Of one run. A bundle that was built before the model priced rules says nothing."""
    if rates is None:
        return 0.0
    moved, operations = fired.get("bytes", 0) / rates["gbps"], fired.get("conv_operations", 0)
    conv = rates.get("conv_gflops")
    return (moved + (operations / conv - operations / rates["linear_gflops"] if conv else 0.0)) / 1e3


def _worth(narrow: Sequence[Mapping], provenance: Mapping) -> str:
    """By the model: half of the bytes are written and read less, at the target's rate."""
    saved = sum(b["bytes"] // 2 for b in narrow)
    casts = sum(b["casts"] - b["added"] for b in narrow)
    rates = _rates(provenance)
    time = f", modelled {2 * saved / rates['gbps'] / 1e3:.1f} us of writing and reading" if rates else ""
    return f"{saved / 1e3:.1f} kB less{time}, {casts} casts less"


def unfused_rows(provenance: Mapping, iterations: Mapping[str, int]) -> list[tuple[str, ...]]:
    """attention_rows() of those that are not fused, or may be slow although they are."""
    return [row for row in attention_rows(provenance, iterations) if row[3] != "yes"]


def known_by(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """By whom it is known, of rows of attention_rows(): one line each of what is among them."""
    named = {"obstacles": ("no", any(r[3].startswith("no") for r in rows)),
             "doubts": ("yes; ...", any(r[3].startswith("yes;") for r in rows))}
    return [f"{word}: known by {KNOWN_BY[which]}" for which, (word, is_so) in named.items() if is_so]


def attention_rows(provenance: Mapping, iterations: Mapping[str, int]) -> list[tuple[str, ...]]:
    """(stage, how many, heads x queries x keys x width, whether it is fused, modelled ms of a replan): attentions that
    are alike in one row. iterations: {stage: how often it runs}. The time is that of logits that are written and read
    twice; of one that is fused but may be slow, the most that is to be gained."""
    alike: dict[tuple, int] = {}
    for a in provenance.get("attentions", ()):
        shape = f"{a['heads']}x{a['queries']}x{a['keys']}x{a['width']}"
        key = a["stage"], shape, tuple(a["obstacles"]), tuple(a["doubts"]), a["logits_bytes"]
        alike[key] = alike.get(key, 0) + 1
    rates = _rates(provenance)
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
