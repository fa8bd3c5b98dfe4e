"""Blocks on policies: the demo, the example, checkpoints, beside other engines."""

from __future__ import annotations

import json

from docs.figures import MISSING, ROOT, duration_text, figures_of


def demo(member: str) -> str:
    from examples.demo import text

    figures = figures_of("profiles/host/demo.json").get(member)
    return f"```text\n{text(figures)}\n```\n" if figures else MISSING


def setup() -> str:
    """What the commands cost on one machine, from a fresh clone."""
    figures = figures_of("profiles/host/setup.json")
    if not figures:
        return MISSING
    rows = [f"| `{s['command']}` | {s['installs']} | {duration_text(s['seconds'])} | {s['megabytes']:.0f} MB |"
            for s in figures["steps"]]
    where = figures["machine"]
    return "\n".join(["| command | what it adds | time | on disk |", "|---|---|---|---|", *rows, "",
                      f"Measured from a fresh clone without a package cache, on {where['cores']} cores of "
                      f"{where['cpu']}, Python {where['versions']['python']}; downloads included.", ""])


def libero(name: str) -> str:
    """Tables of the example: closed-loop results and training."""
    from examples.libero_goal import report

    return report.rendered()[name] + "\n" if report.results() else MISSING


def summary() -> str:
    """Both members in one table: one thread, beside PyTorch and the fastest of the other engines, and episodes solved."""
    lines = ["| policy | eager PyTorch, ms | fastest other engine, ms | vlacompile, ms | vlacompile, new instruction, ms "
             "| solved by PyTorch | solved by the bundle |", "|---|---|---|---|---|---|---|"]
    for member in ("light", "heavy"):
        figures = figures_of(f"profiles/host/bench-{member}.json")
        if not figures:
            return MISSING
        rows = {r["engine"]: r for r in figures["engines"] if r["threads"] == 1 and r["ran"]}
        eager, ours = rows.pop("PyTorch eager"), rows.pop("vlacompile")
        other = min(rows.values(), key=lambda r: r["same_wall_ms"])
        lines.append(f"| {member} | {eager['same_wall_ms']:.1f} | {other['same_wall_ms']:.1f} ({other['engine']}) | "
                     f"**{ours['same_wall_ms']:.1f}** | {ours['new_wall_ms']:.1f} | "
                     + " | ".join(_solved(member, engine) for engine in ("torch", "vlab")) + " |")
    where = figures["machine"]
    return "\n".join([*lines, "", "Median milliseconds per replan with the instruction of the replan before, one thread, fp32; the "
                      "other engines run the whole graph in every replan, whatever the instruction; "
                      f"episodes of LIBERO-Goal from the same initial states; {where['cpu']}, torch "
                      f"{where['versions']['torch']}.", ""])


def _solved(member: str, engine: str) -> str:
    path = ROOT / f"examples/libero_goal/results/{member}-{engine}.jsonl"
    episodes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return f"{sum(e['success'] for e in episodes)}/{len(episodes)}"


def bench(member: str) -> str:
    figures = figures_of(f"profiles/host/bench-{member}.json")
    if not figures:
        return MISSING
    lines = ["| engine | threads | same instruction, ms | new instruction, ms | peak memory, MB | max abs difference |",
             "|---|---|---|---|---|---|"]
    for r in figures["engines"]:
        cells = ([f"{r['same_wall_ms']:.2f}", f"{r['new_wall_ms']:.2f}", f"{r['peak_rss_mb']:.0f}", f"{r['max_abs']:.0e}"]
                 if r["ran"] else ["did not run", "", "", ""])
        lines.append(f"| {r['engine']} | {r['threads']} | {' | '.join(cells)} |")
    where = figures["machine"]
    lines += ["", f"Median milliseconds per replan of the {member} policy; {where['cpu']}, {where['cores']} cores, "
              + ", ".join(f"{p} {v}" for p, v in where["versions"].items()) + ".", ""]
    return "\n".join(lines)


def lerobot(size: str = "") -> str:
    """LeRobot policies: where the work lies, and what a chunk costs."""
    figures = figures_of(f"profiles/host/lerobot{size}.json")
    if not figures:
        return MISSING
    lines = ["| policy | parameters, M | GFLOP per chunk, as traced | staged | in stages | eager PyTorch, ms | torch.compile, ms | one ONNX graph, "
             "ms | libvlart, ms | max abs difference |", "|---|---|---|---|---|---|---|---|---|---|"]
    for kind, f in figures.items():
        total = sum(s["gflop"] for s in f["stages"])
        shares = ", ".join(f"{s['stage']}{'' if s['iterations'] == 1 else ' x ' + str(s['iterations'])} "
                           f"{100 * s['gflop'] / total:.1f} %" for s in f["stages"] if s["gflop"] > 0)
        ms = [f"{f['chunk_ms'][e]:.0f}" if e in f["chunk_ms"] else "not tried" for e in
              ("pytorch", "torch_compile", "one_graph", "libvlart")]
        worst = max(p["max_abs"] for p in f["parity"].values())
        lines.append(f"| {kind} | {f['parameters'] / 1e6:.1f} | {f['traced_gflop']:.2f} | {total:.2f} | {shares} | "
                     f"{' | '.join(ms)} | {worst:.0e} |")
    where = next(iter(figures.values()))["machine"]
    where_sized = "at small widths with the whole structure" if size else "at LeRobot's default sizes"
    lines += ["", f"Random weights {where_sized}, one thread, a new observation and new noise per chunk, medians; "
              f"{where['cpu']}, {where['cores']} cores, lerobot {where['versions']['lerobot']}.", ""]
    return "\n".join(lines)


def plans() -> str:
    """Policies of real size without their weights: where parameters and work go."""
    lines = ["| policy | parameters, M | in stages | constant-folded | never read | GFLOP per chunk | weights per stage |",
             "|---|---|---|---|---|---|---|"]
    for path in sorted((ROOT / "profiles/plans").glob("*.json")):
        f = json.loads(path.read_text(encoding="utf-8"))
        p = {k: f"{v / 1e6:.1f}" for k, v in f["parameters"].items()}
        shares = ", ".join(f"{s['stage']}{'' if s['iterations'] == 1 else ' x ' + str(s['iterations'])} "
                           f"{100 * s['weight_share']:.0f} %" for s in f["stages"] if s["weight_share"] >= 0.005)
        lines.append(f"| {f['policy']} | {p['all']} | {p['in_stages']} | {p['folded']} | {p['unread']} | "
                     f"{f['flops']['in_stages'] / 1e9:.0f} | {shares} |")
    return "\n".join([*lines, ""]) if len(lines) > 2 else MISSING
