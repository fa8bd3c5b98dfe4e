"""Blocks on precision."""

from __future__ import annotations

import json

from docs.figures import MISSING, ROOT, figures_of


def precision_modes() -> str:
    """Bundles of both members in every mode: size, time, error in action space, and episodes in the simulator."""
    lines = ["| member | mode | weights and stages, MB | same instruction, ms | new instruction, ms | peak memory, MB | action error "
             "| solved |", "|---|---|---|---|---|---|---|---|"]
    for member in ("light", "heavy"):
        figures = figures_of(f"profiles/host/precision-modes-{member}.json")
        for r in (figures or {"rows": []})["rows"]:
            played = ROOT / f"examples/libero_goal/results/{member}-{r['mode']}.jsonl"
            episodes = [json.loads(x) for x in played.read_text().splitlines()] if played.is_file() else []
            solved = f"{sum(e['success'] for e in episodes)}/{len(episodes)}" if episodes else "not played"
            lines.append(f"| {member} | {r['mode']} | {r['megabytes']:.1f} | {r['same_ms']:.2f} | {r['new_ms']:.2f} | "
                         f"{r['peak_rss_mb']:.0f} | {r['action_error']:.3f} | {solved} |")
    if len(lines) == 2:
        return MISSING
    where = figures["machine"]
    return "\n".join([*lines, "", "One thread, medians, interleaved; action error on recorded observations that nothing was "
                      f"calibrated on; {where['cpu']}, {where['cores']} cores, onnxruntime {where['versions']['onnxruntime']}.", ""])


def precision_sized() -> str:
    """Policies of real size with random weights, in every mode, stage by stage."""
    lines = []
    for path in sorted((ROOT / "profiles/host").glob("precision-modes-*.json")):
        figures = json.loads(path.read_text(encoding="utf-8"))
        if figures["member"] in ("light", "heavy"):
            continue
        stages = list(figures["rows"][0]["stages_ms"])
        lines += [f"| {figures['member']} | MB | chunk, ms | " + " | ".join(f"{s}, ms" for s in stages)
                  + " | peak memory, MB | action error |", "|---" * (len(stages) + 5) + "|"]
        lines += [f"| {r['mode']} | {r['megabytes']:.0f} | {r['same_ms']:.0f} | "
                  + " | ".join(f"{r['stages_ms'][s]:.0f}" for s in stages)
                  + f" | {r['peak_rss_mb']:.0f} | {r['action_error']:.3f} |" for r in figures["rows"]]
        lines.append("")
    if not lines:
        return MISSING
    return "\n".join([*lines, "Random weights at LeRobot's default sizes; a new observation and new noise per chunk; one thread, "
                      "medians, interleaved. Of a loop's body: all iterations.", ""])


def precision_stages() -> str:
    """Single stages, quantised by us and by others."""
    engines: list[str] = []
    rows: dict[tuple[str, str], dict[str, dict]] = {}
    for member in ("light", "heavy"):
        for r in (figures_of(f"profiles/host/precision-stages-{member}.json") or {"rows": []})["rows"]:
            rows.setdefault((member, r["stage"]), {})[r["engine"]] = r
            engines += [r["engine"]] if r["engine"] not in engines else []
    if not rows:
        return MISSING
    lines = ["| stage | " + " | ".join(engines) + " |", "|---" * (len(engines) + 1) + "|"]
    for (member, stage), found in rows.items():
        cells = [f"{found[e]['ms']:.2f} ({found[e]['rel_l2']:.3f})" if e in found else "not possible" for e in engines]
        lines.append(f"| {member} {stage} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Milliseconds, and in brackets the relative L2 error of the stage's outputs on observations that "
                      "nothing was calibrated on; one thread, medians, interleaved. NNCF runs in OpenVINO, all others in ONNX "
                      "Runtime.", ""])
