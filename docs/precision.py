"""Blocks on precision."""

from __future__ import annotations

import json

from docs.figures import MISSING, ROOT, figures_of, row_text, table


def precision_modes() -> str:
    """Bundles of both members in every mode: size, time, error in action space, and episodes in the simulator."""
    rows = []
    for member in ("light", "heavy"):
        figures = figures_of(f"profiles/host/precision-modes-{member}.json")
        for r in (figures or {"rows": []})["rows"]:
            played = ROOT / f"examples/libero_goal/results/{member}-{r['mode']}.jsonl"
            episodes = [json.loads(x) for x in played.read_text().splitlines()] if played.is_file() else []
            solved = f"{sum(e['success'] for e in episodes)}/{len(episodes)}" if episodes else "not played"
            rows.append([member, r["mode"], f"{r['megabytes']:.1f}", f"{r['same_ms']:.2f}", f"{r['new_ms']:.2f}",
                         f"{r['peak_rss_mb']:.0f}", f"{r['action_error']:.3f}", solved])
    if not rows:
        return MISSING
    where = figures["machine"]
    titles = ["member", "mode", "weights and stages, MB", "same instruction, ms", "new instruction, ms",
              "peak memory, MB", "action error", "solved"]
    return table(titles, rows, "One thread, medians, interleaved; action error on recorded observations that nothing "
                 f"was calibrated on; {where['cpu']}, {where['cores']} cores, onnxruntime "
                 f"{where['versions']['onnxruntime']}.")


def precision_sized() -> str:
    """Policies of real size with random weights, in every mode, stage by stage."""
    lines: list[str] = []
    for path in sorted((ROOT / "profiles/host").glob("precision-modes-*.json")):
        figures = json.loads(path.read_text(encoding="utf-8"))
        if figures["member"] in ("light", "heavy"):
            continue
        stages = list(figures["rows"][0]["stages_ms"])
        titles = [figures["member"], "MB", "chunk, ms", *(f"{s}, ms" for s in stages), "peak memory, MB",
                  "action error"]
        rows = [[r["mode"], f"{r['megabytes']:.0f}", f"{r['same_ms']:.0f}",
                 *(f"{r['stages_ms'][s]:.0f}" for s in stages), f"{r['peak_rss_mb']:.0f}", f"{r['action_error']:.3f}"]
                for r in figures["rows"]]
        lines += [row_text(titles), "|---" * len(titles) + "|", *map(row_text, rows), ""]
    if not lines:
        return MISSING
    return "\n".join([*lines, "Random weights at LeRobot's default sizes; a new observation and new noise per chunk; "
                      "one thread, medians, interleaved. Of a loop's body: all iterations.", ""])


def precision_stages() -> str:
    """Single stages, quantised by us and by others."""
    engines: list[str] = []
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for member in ("light", "heavy"):
        for r in (figures_of(f"profiles/host/precision-stages-{member}.json") or {"rows": []})["rows"]:
            found.setdefault((member, r["stage"]), {})[r["engine"]] = r
            engines += [r["engine"]] if r["engine"] not in engines else []
    if not found:
        return MISSING
    rows = [[f"{member} {stage}", *(f"{of[e]['ms']:.2f} ({of[e]['rel_l2']:.3f})" if e in of else "not possible"
                                    for e in engines)] for (member, stage), of in found.items()]
    return table(["stage", *engines], rows, "Milliseconds, and in brackets the relative L2 error of the stage's "
                 "outputs on observations that nothing was calibrated on; one thread, medians, interleaved. NNCF runs "
                 "in OpenVINO, all others in ONNX Runtime.")


def precision_rotations() -> str:
    """Int8 with one static scale per tensor: plain, smoothed, rotated, both."""
    figures = figures_of("profiles/host/rotations.json")
    rows, refused = [], []
    for name, found in (figures or {"policies": {}})["policies"].items():
        if "refused" in found:
            refused.append(f"{name} ({found['refused']})")
            continue
        ways = found["ways"]
        rows.append([name, "trained" if found["recorded"] else "random",
                     *("none" if r["error"] is None else f"{r['error']:.4f}" for r in ways.values()),
                     f"{ways['both']['groups']} ({ways['both']['products']})", f"{ways['both']['seconds']:.0f}"])
    if not rows:
        return MISSING
    titles = ["policy", "weights", "plain", "smoothed", "rotated", "both", "rotated values (products at run time)",
              "choice of both, processor s"]
    about = (f"Largest error of an action dimension in its spread, all layers that can be in int8 with one static scale"
             f" per tensor, the rest in fp16 (target {figures['target']}), simulated as TensorRT computes it, on "
             "observations that nothing was calibrated on. Not run on a board. Random weights have no outlying "
             "channels, as trained ones do; observations of those are generated. rt-1 chooses its actions among "
             "scores, which with random weights are nearly equal.")
    return table(titles, rows, about, *(("", "Refused: " + ", ".join(refused) + ".") if refused else ()))
