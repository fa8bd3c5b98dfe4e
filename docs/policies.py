"""Blocks on policies: the demo, the example, checkpoints, beside other engines."""

from __future__ import annotations

import collections
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
        rows.append([f["policy"], p["all"], p["in_stages"], p["folded"], p["unread"], p["dropped"],
                     f"{f['flops']['in_stages'] / 1e9:.0f}", shares])
    titles = ["policy", "parameters, M", "in stages", "constant-folded", "never read", "duplicate, or in unread rows",
              "GFLOP per chunk", "weights per stage"]
    return table(titles, rows) if rows else MISSING


RESULTS = {"equal": "equal", "differs": "**differs**", "refused": "refused", "failed": "failed",
           "absent": "no checkout"}


def gauntlet() -> str:
    """Public policies as their authors wrote them: what came of each."""
    files = sorted((ROOT / "profiles/gauntlet").glob("*.json"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    if not rows:
        return MISSING
    cells = [[r["name"], f"[{r['repository']}](https://github.com/{r['repository']}/tree/{r['commit']})",
              RESULTS[r["result"]], f"{r['share']:.0e}" if "share" in r else "",
              f"{r['build_s']:.0f}" if "build_s" in r else "", len(r["stages"]) if "stages" in r else "",
              r["glue_lines"]] for r in rows]
    where = rows[0]["machine"]
    said = [f"- {r['name']}: {_reason(r)}" for r in rows if r["result"] not in ("equal", "absent")]
    notes = [f"- {r['name']}: {r['note']}." for r in rows if r["note"]]
    titles = ["policy", "repository, at the commit tried", "result", "difference, as a share of the output",
              "build, processor s", "stages", "lines of glue"]
    return table(titles, cells, f"Small sizes with random weights, fp32, one thread; {where['cpu']}, {where['cores']} "
                 f"cores, torch {where['versions']['torch']}.", *(["", "Not equal:", "", *said] if said else []),
                 *(["", "Notes:", "", *notes] if notes else []))


def _reason(row: dict) -> str:
    if row["result"] == "differs":
        return f"{row['share']:.0e} of the output's scale in `{row['output']}`"
    lines = row["message"].splitlines()
    where = next((line.split("module ")[-1].strip() for line in lines if line.strip().startswith("where:")), "")
    return lines[0] + (f" (`{where}`)" if where else "")


def checkpoints() -> str:
    """Checkpoints that were built: how far their actions are from those of the code that they belong to."""
    files = [json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "profiles/checkpoints").glob("*.json"))]
    rows = sorted(({"test": test, **row} for f in files for test, row in f["rows"].items()),
                  key=lambda r: (r["files"], r["policy"]))
    if not rows:
        return MISSING
    cells = [[r["files"], f"`{r['policy']}`", r["oracle"], f"{r['share']:.0e}", len(r["stages"]), r["loop"],
              f"{r['build_s']:.0f}", f"`{r['test'].rpartition('/')[2].partition('::')[0]}`"] for r in rows]
    where = files[0]["machine"]
    titles = ["files written by", "policy", "compared with", "difference", "stages", "loop", "build, processor s",
              "test"]
    return table(titles, cells, f"fp32, one thread; {where['cpu']}, {where['cores']} cores, torch "
                                f"{where['versions']['torch']}.")


def random_policies() -> str:
    """Random policies that were built and compared: runs, and what they found."""
    figures = figures_of("profiles/fuzz/compiler.json")
    if not figures:
        return MISSING
    rows = [[r["day"], f"`{r['sources'][:12]}`", duration_text(r["seconds"]), f"{r['executions']:,}",
             f"{r['unsuitable']:,}", sum(r["findings"].values())] for r in figures["runs"]]
    last = figures["runs"][-1]["sources"]
    same = [r for r in figures["runs"] if r["sources"] == last]
    found = collections.Counter()
    for r in figures["runs"]:
        found.update(r["findings"])
    kinds = [f"- {kind}: {count}" for kind, count in sorted(found.items())]
    return table(["day", "sha256 of the sources", "time", "policies", "unsuitable", "findings"], rows,
                 f"At the hash of the last run: {sum(r['executions'] for r in same):,} policies, "
                 f"{sum(sum(r['findings'].values()) for r in same)} findings. Unsuitable: its own results are no "
                 "numbers, or its own rounding is visible in them.",
                 *(["", "Findings of all runs, by kind:", "", *kinds] if kinds else []))


def builds() -> str:
    """Time and memory of builds, phase by phase."""
    figures = figures_of("profiles/host/build.json")
    if not figures:
        return MISSING
    rows = []
    for name, row in figures["builds"].items():
        phases = {p: of for p, of in row["phases"].items() if of["cpu_s"] >= 0.05}
        peaks = {p: of["anonymous_bytes"] - row["base_bytes"] for p, of in row["phases"].items()}
        highest = max(peaks, key=peaks.__getitem__)
        rows.append([name, row["recipe"], row["target"], *(f"{row[k] / 1e6:.0f}" for k in (
                     "weight_bytes", "largest_stage_bytes", "bundle_bytes")),
                     f"{sum(of['cpu_s'] for of in row['phases'].values()):.1f}",
                     f"{peaks[highest] / 1e6:.0f} in {highest}",
                     ", ".join(f"{p} {of['cpu_s']:.1f}" for p, of in phases.items())])
    return table(["policy", "recipe", "target", "weights, MB", "largest stage, MB", "bundle, MB", "processor time, s",
                  "memory, MB", "of the time"], rows,
                 f"{figures['machine']['cpu']}, one thread, each policy in a process of its own after a small one. "
                 "Memory: the most that the process had for itself beyond what Python and PyTorch take "
                 f"({min(r['base_bytes'] for r in figures['builds'].values()) / 1e6:.0f} MB); mapped weights, which "
                 "the system may drop, are not in it.")
