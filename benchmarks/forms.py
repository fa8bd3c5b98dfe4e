"""A denoising loop as one engine run per step and fused into one engine, as a function of the size of its body.

    python -m benchmarks.forms [--record]

Writes build/bench/forms.json (--record: profiles/host/forms.json): the data behind `compiler/staging/choose_form.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

import vlacompile as vc
from tests.samples.policies import Flow, flow_inputs
from vlacompile.profile import machine

WIDTHS, REPEATS = (8, 32, 64, 128, 256), 200
RECIPE = 'name = "{form}"\ndescription = "one form"\n[loop]\nform = "{form}"\n'


def measure(width: int, folder: Path) -> dict:
    """Median latency in ms of a new chunk in both forms, interleaved."""
    torch.manual_seed(0)
    policy = vc.Policy("flow", Flow(d=width, iterations=10).eval().requires_grad_(False), *flow_inputs())
    sessions, row = {}, {}
    for form in ("steps", "fused"):
        (folder / f"{form}.toml").write_text(RECIPE.format(form=form), encoding="utf-8")
        bundle = vc.build(policy, recipe=str(folder / f"{form}.toml"), out=folder / f"{form}-{width}.vlab")
        if form == "steps":
            stage = next(s for s in bundle.plan.stages if s.sampling is not None)
            row = {"width": width, "mflop_per_step": stage.flops / 1e6, "weight_kb": stage.weight_bytes / 1e3}
        sessions[form] = vc.Session(bundle.path)
        for name, tensor in policy.example_inputs.items():
            sessions[form].write(name, tensor.numpy())
        sessions[form].step()
    times: dict[str, list[float]] = {form: [] for form in sessions}
    noise = policy.example_inputs["noise"].numpy()
    for i in range(REPEATS):
        for form, session in sessions.items():
            session.write("noise", noise * (1 + 1e-3 * i))
            begin = time.perf_counter()
            session.step()
            times[form].append(1e3 * (time.perf_counter() - begin))
    for session in sessions.values():
        session.close()
    return row | {f"{form}_ms": median(t) for form, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    record = parser.parse_args().record
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width in WIDTHS:
            rows.append(measure(width, Path(folder)))
            r = rows[-1]
            print(f"{r['mflop_per_step']:8.2f} MFLOP per step: steps {r['steps_ms']:.3f} ms, "
                  f"fused {r['fused_ms']:.3f} ms",
                  flush=True)
    out = Path("profiles/host" if record else "build/bench") / "forms.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows, "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
