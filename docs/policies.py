"""Blocks on policies: the demo, the example, checkpoints, beside other engines."""

from __future__ import annotations

import json

from docs.figures import MISSING, ROOT, duration_text, figures_of, table


def demo(member: str) -> str:
    from examples.demo import text

    figures = figures_of("profiles/host/demo.json").get(member)
    return f"```text\n{text(figures)}\n```\n" if figures else MISSING


def setup() -> str:
    """What the commands cost on one machine, from a fresh clone."""
    figures = figures_of("profiles/host/setup.json")
    if not figures:
        return MISSING
    rows = [[f"`{s['command']}`", s["installs"], duration_text(s["seconds"]), f"{s['megabytes']:.0f} MB"]
            for s in figures["steps"]]
    where = figures["machine"]
    return table(["command", "what it adds", "time", "on disk"], rows,
                 f"Measured from a fresh clone without a package cache, on {where['cores']} cores of {where['cpu']}, "
                 f"Python {where['versions']['python']}; downloads included.")


def libero(name: str) -> str:
    """Tables of the example: closed-loop results and training."""
    from examples.libero_goal import report

    return report.rendered()[name] + "\n" if report.results() else MISSING


def summary() -> str:
    """Both members: one thread, beside PyTorch and the fastest of the other engines, and episodes solved."""
    rows = []
    for member in ("light", "heavy"):
        figures = figures_of(f"profiles/host/bench-{member}.json")
        if not figures:
            return MISSING
        engines = {r["engine"]: r for r in figures["engines"] if r["threads"] == 1 and r["ran"]}
        eager, ours = engines.pop("PyTorch eager"), engines.pop("vlacompile")
        other = min(engines.values(), key=lambda r: r["same_wall_ms"])
        rows.append([member, f"{eager['same_wall_ms']:.1f}", f"{other['same_wall_ms']:.1f} ({other['engine']})",
                     f"**{ours['same_wall_ms']:.1f}**", f"{ours['new_wall_ms']:.1f}", _solved(member, "torch"),
                     _solved(member, "vlab")])
    where = figures["machine"]
    titles = ["policy", "eager PyTorch, ms", "fastest other engine, ms", "vlacompile, ms",
              "vlacompile, new instruction, ms", "solved by PyTorch", "solved by the bundle"]
    return table(titles, rows, "Median milliseconds per replan, the instruction unchanged unless the column says new, "
                 "one thread, fp32; the other engines run the whole graph in every replan, whatever the "
                 "instruction; episodes of "
                 f"LIBERO-Goal from the same initial states; {where['cpu']}, torch {where['versions']['torch']}.")


def _solved(member: str, engine: str) -> str:
    path = ROOT / f"examples/libero_goal/results/{member}-{engine}.jsonl"
    episodes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return f"{sum(e['success'] for e in episodes)}/{len(episodes)}"


def bench(member: str) -> str:
    figures = figures_of(f"profiles/host/bench-{member}.json")
    if not figures:
        return MISSING
    rows = [[r["engine"], r["threads"], *(
        (f"{r['same_wall_ms']:.2f}", f"{r['new_wall_ms']:.2f}", f"{r['peak_rss_mb']:.0f}", f"{r['max_abs']:.0e}")
        if r["ran"] else ("did not run", "", "", ""))] for r in figures["engines"]]
    where = figures["machine"]
    titles = ["engine", "threads", "same instruction, ms", "new instruction, ms", "peak memory, MB",
              "max abs difference"]
    return table(titles, rows, f"Median milliseconds per replan of the {member} policy; {where['cpu']}, "
                 f"{where['cores']} cores, " + ", ".join(f"{p} {v}" for p, v in where["versions"].items()) + ".")


def _shares(stages: list[dict], of: list[float], form: str, least: float) -> str:
    """Each stage's share, those below `least` left out; "x K" where it is a loop's body."""
    names = [s["stage"] + ("" if s["iterations"] == 1 else f" x {s['iterations']}") for s in stages]
    return ", ".join(f"{name} {100 * share:{form}} %" for name, share in zip(names, of, strict=True) if share >= least)


def lerobot(size: str = "") -> str:
    """LeRobot policies: where the work lies, and what a chunk costs."""
    figures = figures_of(f"profiles/host/lerobot{size}.json")
    if not figures:
        return MISSING
    rows = []
    for kind, f in figures.items():
        stages = [s for s in f["stages"] if s["gflop"] > 0]
        total = sum(s["gflop"] for s in f["stages"])
        ms = [f"{f['chunk_ms'][e]:.0f}" if e in f["chunk_ms"] else "not tried" for e in
              ("pytorch", "torch_compile", "one_graph", "libvlart")]
        rows.append([kind, f"{f['parameters'] / 1e6:.1f}", f"{f['traced_gflop']:.2f}", f"{total:.2f}",
                     _shares(stages, [s["gflop"] / total for s in stages], ".1f", 0.0), *ms,
                     f"{max(p['max_abs'] for p in f['parity'].values()):.0e}"])
    where = next(iter(figures.values()))["machine"]
    sizes = "at small widths with the whole structure" if size else "at LeRobot's default sizes"
    titles = ["policy", "parameters, M", "GFLOP per chunk, as traced", "staged", "in stages", "eager PyTorch, ms",
              "torch.compile, ms", "one ONNX graph, ms", "libvlart, ms", "max abs difference"]
    return table(titles, rows, f"Random weights {sizes}, one thread, a new observation and new noise per chunk, "
                 f"medians; {where['cpu']}, {where['cores']} cores, lerobot {where['versions']['lerobot']}.")


def plans() -> str:
    """Policies of real size without their weights: where parameters and work go."""
    rows = []
    for path in sorted((ROOT / "profiles/plans").glob("*.json")):
        f = json.loads(path.read_text(encoding="utf-8"))
        p = {k: f"{v / 1e6:.1f}" for k, v in f["parameters"].items()}
        shares = _shares(f["stages"], [s["weight_share"] for s in f["stages"]], ".0f", 0.005)
        rows.append([f["policy"], p["all"], p["in_stages"], p["folded"], p["unread"],
                     f"{f['flops']['in_stages'] / 1e9:.0f}", shares])
    titles = ["policy", "parameters, M", "in stages", "constant-folded", "never read", "GFLOP per chunk",
              "weights per stage"]
    return table(titles, rows) if rows else MISSING
