"""Renders the example's result tables from `results/` as markdown: `python -m examples.libero_goal.report`."""

from __future__ import annotations

import json
from collections import Counter

from safetensors import safe_open

from examples.libero_goal.evaluate import RESULTS, ROUNDING, Episode, load, mcnemar
from examples.libero_goal.policy import checkpoint
from examples.libero_goal.train import INSTRUCTIONS

COLUMNS = ("light-torch", "light-vlab", "heavy-torch", "heavy-vlab", "light-torch-wrong", "heavy-torch-wrong")
PARTNERS = ("vlab", "torch-disturbed")  # compared with the member's PyTorch episodes, state by state


def results() -> dict[str, list[Episode]]:
    return {p.stem: load(p) for p in sorted(RESULTS.glob("*.jsonl"))}


def success_table(found: dict[str, list[Episode]]) -> str:
    """One row per instruction, one column per result file: successes / episodes."""
    names = [n for n in COLUMNS if n in found]
    lines = ["| instruction | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    tasks = sorted({e.task for rows in found.values() for e in rows})
    for task in tasks:
        cells = []
        for name in names:
            rows = [e for e in found[name] if e.task == task]
            cells.append(f"{sum(e.success for e in rows)}/{len(rows)}" if rows else "")
        lines.append(f"| {INSTRUCTIONS[task]} | " + " | ".join(cells) + " |")
    totals = [f"**{sum(e.success for e in found[n])}/{len(found[n])}** "
              f"({100 * sum(e.success for e in found[n]) / len(found[n]):.0f} %)" for n in names]
    return "\n".join([*lines, "| all | " + " | ".join(totals) + " |"])


def pairing_table(found: dict[str, list[Episode]]) -> str:
    """PyTorch compared with libvlart, and with PyTorch whose actions were perturbed by noise of the size of rounding: a
    control for how often a negligible difference changes the outcome."""
    lines = ["| member | PyTorch beside | paired episodes | PyTorch solves | the other solves | same outcome | "
             "same number of steps | exact McNemar p |", "|---|---|---|---|---|---|---|---|"]
    for member in ("light", "heavy"):
        for partner in PARTNERS:
            pair = [{(e.task, e.state): e for e in found.get(f"{member}-{kind}", [])} for kind in ("torch", partner)]
            common = sorted(pair[0].keys() & pair[1].keys())
            if not common:
                continue
            outcomes = Counter((pair[0][k].success, pair[1][k].success) for k in common)
            steps = sum(pair[0][k].steps == pair[1][k].steps for k in common)
            a, b = outcomes[True, False], outcomes[False, True]
            name = "libvlart" if partner == "vlab" else f"PyTorch + {ROUNDING:g} noise"
            lines.append(f"| {member} | {name} | {len(common)} | {outcomes[True, True] + a} | "
                         f"{outcomes[True, True] + b} "
                         f"| {len(common) - a - b} ({100 * (len(common) - a - b) / len(common):.0f} %) | {steps} | "
                         f"{mcnemar(a, b):.2f} |")
    return "\n".join(lines)


def training_table() -> str:
    """Training data and settings of each committed head."""
    lines = ["| member | tasks | demonstrations | frames | iterations | final action loss | seed | size |",
             "|---|---|---|---|---|---|---|---|"]
    for member in ("light", "heavy"):
        path = checkpoint(member)
        if path.is_file():
            with safe_open(path, "np") as file:
                s = json.loads(file.metadata()["training"])
            lines.append(f"| {member} | {len(s['tasks'])} | {s['demonstrations']} | {s['frames']} | "
                         f"{s['cycles']} x {s['iterations']} | {s['final_action_loss']} | {s['seed']} | "
                         f"{path.stat().st_size / 1e6:.1f} MB |")
    return "\n".join(lines)


def rendered() -> dict[str, str]:
    """{block name: markdown}, for the README's render markers."""
    found = results()
    return {"libero-success": success_table(found), "libero-pairing": pairing_table(found),
            "libero-training": training_table()}


def main() -> None:
    for name, text in rendered().items():
        print(f"## {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
