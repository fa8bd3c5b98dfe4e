"""Plans of the policies that others measured on boards, at real size and at the published configuration, from shapes
alone: what the models of latency, memory and energy are held against (`python -m benchmarks.board_model`).

    python -m benchmarks.board_policies smolvla pi05                            (in the environment lerobot)
    python -m benchmarks.board_policies xvla groot_n16 groot_n17                (in the environment lerobot061)
    python -m benchmarks.board_policies evo1

Writes profiles/plans/board/KIND.json: of every stage its products in fp16, equal ones counted, and the bytes that its
engine holds; minutes and two gigabytes each, without weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections import Counter
from pathlib import Path

from benchmarks.published_checkpoints import MAKERS, Written, written
from vlacompile.compiler.fit.engine_memory import budget_of
from vlacompile.compiler.fit.planner import plan_fit
from vlacompile.compiler.fit.stage_needs import Needs, needs_of
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.precision.assign.layer_costs import weight_bytes
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import load_target
from vlacompile.phases.capture import capture
from vlacompile.phases.find_stages import find_stages
from vlacompile.phases.read_inputs import read_inputs
from vlacompile.profile.modelled_stages import BLOCK, kernels_of
from vlacompile.profile.roofline import CHANGING
from vlart.files.atomic import write_whole

FOLDER, WORK = Path(__file__).parents[1] / "profiles" / "plans" / "board", Path("build/plans/board")
TARGET = "orin-nano-8gb@maxn-super+jetpack-7.2"
SCHEME = "fp16"  # of what was measured


def record(kind: str, made: Written) -> dict:
    """Raises VlaError."""
    inputs = read_inputs(made.folder.absolute(), TARGET, None, weights=False, options=made.options)
    staging = find_stages(inputs, capture(inputs, called=False))
    if not staging.complete:
        staging = find_stages(inputs, capture(inputs, whole=True))
    needs = needs_of(staging.staged, inputs.recipe.precision)
    fit = plan_fit(needs, budget_of(load_target(TARGET), 0))
    return {"kind": kind, "configuration": dict(made.settings), "scheme": SCHEME,
            "inputs": {n: list(t.shape) for n, t in inputs.policy.example_inputs.items()},
            "values": needs.values, "distinct": _distinct(staging.staged),
            "fit": {"verdict": fit.verdict, "peak": fit.peak, "measures": list(fit.measures),
                    "schemes": {s.stage: s.scheme for s in fit.stages}},
            "stages": [_stage(s, staging.staged, needs) for s in staging.staged.stages]}


def _distinct(staged: Staged) -> dict[str, int]:
    """Bytes of the weights in fp16, each once, though several engines hold it; tables: those that are looked up."""
    sizes = {n: t.numel() for s in staged.stages for n, t in s.constants.items()}
    tables = {x.weight for s in staged.stages for x in layers_of(s) if x.kind == "embedding"}
    return {"weights": 2 * sum(sizes.values()), "tables": 2 * sum(sizes[n] for n in tables)}


def _stage(stage: StageGraph, staged: Staged, needs: Needs) -> dict:
    need = next(n for n in needs.stages if n.name == stage.name)
    products = Counter(dataclasses.replace(k, name="") for k in kernels_of(stage, SCHEME))
    found = layers_of(stage)
    layers = {x.node for x in found}
    tables = {x.weight: x for x in found if x.kind == "embedding"}
    between = Counter((tuple(tuple(a.meta["val"].shape) for a in n.all_input_nodes[:3]), flops(n))
                      for n in stage.graph.nodes if n.name not in layers and flops(n))
    return {"stage": stage.name, "iterations": stage.iterations,
            "every": any(staged.program.sources[n].update in CHANGING for n in stage.sources),
            "engine": need.engine, "weights": need.weights[SCHEME], "activations": need.activations[SCHEME],
            "tables": sum(weight_bytes(x, SCHEME, BLOCK) for x in tables.values()),
            "products": [{"count": n, **{f: getattr(k, f) for f in ("kind", "rows", "operations", "stored", "weights")}}
                         for k, n in products.items()],
            "between": [{"count": n, "operands": [list(x) for x in shapes], "operations": operations}
                        for (shapes, operations), n in between.items()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", metavar="KIND", choices=[k for kinds in MAKERS.values() for k in kinds])
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in parser.parse_args().kinds:
        begin, folder = time.perf_counter(), WORK.absolute() / kind / "pretrained_model"
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir(parents=True)
        with written(kind, folder) as made:
            found = record(kind, made)
        write_whole(FOLDER / f"{kind}.json", (json.dumps(found, indent=1) + "\n").encode())
        gigabytes = sum(s["weights"] for s in found["stages"]) / 1e9
        print(f"{kind}: {len(found['stages'])} stages, {gigabytes:.2f} GB of weights; "
              f"{time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
