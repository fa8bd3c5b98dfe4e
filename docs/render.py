"""Writes the measured parts of README.md: `python -m docs.render`, or `--check` to only compare.

Text between `<!-- render:NAME -->` and `<!-- end -->` is the output of the function of that name, made
from profiles/*.json and the results of the example. Numbers are never typed into prose.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
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


def evaluation() -> str:
    """Closed loop: solved episodes per member and engine, and how the two engines pair up."""
    results = {}
    for path in sorted((ROOT / "examples" / "libero_goal" / "results").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        results[path.stem] = {(r["task"], r["state"]): r for r in rows}
    if not results:
        return MISSING
    lines = ["| run | episodes | solved | 95 % interval |", "|---|---|---|---|"]
    for name, episodes in results.items():
        solved = sum(e["success"] for e in episodes.values())
        low, high = _wilson(solved, len(episodes))
        lines.append(f"| {name} | {len(episodes)} | {solved} ({100 * solved / len(episodes):.0f} %) | "
                     f"{100 * low:.0f} to {100 * high:.0f} % |")
    lines.append("")
    for name in results:
        other = name.replace("-torch", "-vlab")
        if other != name and other in results:
            common = results[name].keys() & results[other].keys()
            same = sum(results[name][k]["success"] == results[other][k]["success"] for k in common)
            lines.append(f"`{name}` and `{other}` end the same way in {same} of {len(common)} paired episodes.")
    return "\n".join(lines).rstrip() + "\n"


def _wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of k successes in n trials (Wilson 1927)."""
    p, scale = k / n, 1 + z * z / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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
    "setup": setup,
    "evaluation": evaluation,
    "verbs": verbs,
    "exit-codes": exit_codes,
}


def render(text: str) -> str:
    """README's text with every block made anew."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], text)


def main() -> None:
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        main()
    elif render(README.read_text(encoding="utf-8")) != README.read_text(encoding="utf-8"):
        sys.exit("README.md is not current: run `python -m docs.render`")
