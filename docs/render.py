"""Writes the measured parts of the READMEs: `python -m docs.render`, or `--check` to only compare.

Text between `<!-- render:NAME -->` and `<!-- end -->` is the output of the function of that name, made
from profiles/*.json and the results of the example. Numbers are never typed into prose.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "examples" / "libero_goal" / "README.md")
BLOCK = re.compile(r"(<!-- render:([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MISSING = "Not measured yet.\n"


def _read(relative: str) -> dict:
    path = ROOT / relative
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def demo(member: str) -> str:
    from examples.demo import text

    figures = _read("profiles/host/demo.json").get(member)
    return f"```text\n{text(figures)}\n```\n" if figures else MISSING


def setup() -> str:
    """What the commands cost on one machine, from a fresh clone."""
    figures = _read("profiles/host/setup.json")
    if not figures:
        return MISSING
    rows = [f"| `{s['command']}` | {s['installs']} | {_duration(s['seconds'])} | {s['megabytes']:.0f} MB |"
            for s in figures["steps"]]
    where = figures["machine"]
    return "\n".join(["| command | what it adds | time | on disk |", "|---|---|---|---|", *rows, "",
                      f"Measured from a fresh clone without a package cache, on {where['cores']} cores of "
                      f"{where['cpu']}, Python {where['versions']['python']}; downloads included.", ""])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def libero(name: str) -> str:
    """Tables of the example: closed-loop results and training."""
    from examples.libero_goal import report

    return report.rendered()[name] + "\n" if report.results() else MISSING


def bench(member: str) -> str:
    figures = _read(f"profiles/host/bench-{member}.json")
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
    figures = _read(f"profiles/host/lerobot{size}.json")
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
    lines = ["| policy | parameters, M | in stages | computed now | never read | GFLOP per chunk | weights per stage |",
             "|---|---|---|---|---|---|---|"]
    for path in sorted((ROOT / "profiles/plans").glob("*.json")):
        f = json.loads(path.read_text(encoding="utf-8"))
        p = {k: f"{v / 1e6:.1f}" for k, v in f["parameters"].items()}
        shares = ", ".join(f"{s['stage']}{'' if s['iterations'] == 1 else ' x ' + str(s['iterations'])} "
                           f"{100 * s['weight_share']:.0f} %" for s in f["stages"] if s["weight_share"] >= 0.005)
        lines.append(f"| {f['policy']} | {p['all']} | {p['in_stages']} | {p['folded']} | {p['unread']} | "
                     f"{f['flops']['in_stages'] / 1e9:.0f} | {shares} |")
    return "\n".join([*lines, ""]) if len(lines) > 2 else MISSING


def verbs() -> str:
    from vlacompile.cli.main import VERBS

    rows = [f"| `vlacompile {name}` | {module.SUMMARY} |" for name, module in VERBS.items()]
    return "\n".join(["| verb | |", "|---|---|", *rows, ""])


def exit_codes() -> str:
    from vlacompile import errors

    codes: dict[int, list[str]] = defaultdict(list)
    for error in errors.VlaError.__subclasses__():
        if error.__module__ == errors.__name__:
            codes[error.exit_code].append(f"| {error.exit_code} | `{error.__name__}` | {(error.__doc__ or '').splitlines()[0]} |")
    rows = [row for code in sorted(codes) for row in codes[code]]
    return "\n".join(["| exit code | error | when |", "|---|---|---|", *rows, ""])


BLOCKS: dict[str, Callable[[], str]] = {
    "demo-light": lambda: demo("light"),
    "demo-heavy": lambda: demo("heavy"),
    "bench-light": lambda: bench("light"),
    "bench-heavy": lambda: bench("heavy"),
    "lerobot": lerobot,
    "lerobot-tiny": lambda: lerobot("-tiny"),
    "plans": plans,
    "setup": setup,
    "libero-success": lambda: libero("libero-success"),
    "libero-pairing": lambda: libero("libero-pairing"),
    "libero-training": lambda: libero("libero-training"),
    "verbs": verbs,
    "exit-codes": exit_codes,
}


def render(text: str) -> str:
    """A README's text with every block made anew."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], text)


def stale() -> list[Path]:
    return [p for p in READMES if render(p.read_text(encoding="utf-8")) != p.read_text(encoding="utf-8")]


def main() -> None:
    for path in stale():
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        main()
    elif stale():
        sys.exit(f"not current: {', '.join(str(p.relative_to(ROOT)) for p in stale())}; run `python -m docs.render`")
