"""Closed loops with the graphs that a board runs, not the host's: static int8, int4, int8 beside fp16, and fp16.

    python -m examples.libero_goal.boards [--states 0-3] [--modes fp32,fp16,int8,int4,int8-fp16] [--record]

Bundles for a Jetson are run by the stand-in, from the ONNX files of its TensorRT engines. fp16 is computed in PyTorch
as the compiler means it: every result rounded to fp16, sums in f32 as tensor cores keep them; ONNX Runtime's kernels
keep some results in f32. fp32 is the host's, for comparison. Episodes go to build/libero_goal/results/ (resumable);
--record also writes profiles/host/board-loops.json. These are the board's numbers, not its latency.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import vlacompile as vc
from examples.libero_goal import closed_loop
from examples.libero_goal.engines import BundleEngine, EmulatedEngine, Engine
from examples.libero_goal.evaluate import WORK, Episode, load, mcnemar, parse_states, play, result_file
from examples.libero_goal.expert import TASKS
from examples.libero_goal.policy import recipe_of
from vlacompile import workers
from vlacompile.profile import machine
from vlacompile.recipe.recipe import load_recipe
from vlacompile.workers import Workers
from vlart.files.atomic import write_whole

TARGET, MODES = "orin-nano-8gb", ("fp32", "fp16", "int8", "int4", "int8-fp16")
RECORD = Path("profiles/host/board-loops.json")
INT8_IN_FP16 = '[precision]\nbase = "fp16"\nlayers = "int8"\nsmooth = 0.5\n'


def recipe(mode: str) -> str:
    """The shipped recipe of the pair, or for int8 beside fp16 one with the pair's [action] section."""
    if mode != "int8-fp16":
        return recipe_of(mode)
    action = load_recipe(recipe_of("fp32")).action
    bounds = "".join(f"{k} = {list(getattr(action, k))}\n" for k in ("low", "high"))
    path = WORK / f"{mode}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f'name = "{mode}"\ndescription = "int8 in fp16"\n[action]\nexecute = {action.execute}\n{bounds}'
                      f"{INT8_IN_FP16}".encode())
    return str(path)


def engine_of(member: str, mode: str) -> tuple[Engine, str]:
    """(engine, hash of what it runs)."""
    source = f"examples.libero_goal.policy:{member}"
    if mode == "fp16":
        engine = EmulatedEngine(member, source, TARGET, recipe(mode))
        return engine, engine.sha256
    target = "host" if mode == "fp32" else TARGET
    path = WORK / f"{member}-{target}-{mode}.vlab"
    if not path.is_dir():
        vc.build(source, target=target, recipe=recipe(mode), out=path,
                 progress=lambda phase: print(f"build {member} {mode}: {phase}", flush=True))
    return BundleEngine(member, path, stand_in=target != "host"), vc.load(path).hash


@dataclass(frozen=True)
class Job:
    """One episode."""

    member: str
    mode: str
    task: int
    state: int

    def play(self) -> Episode:
        scene = closed_loop.scene()
        return play(scene, _engine(self.member, self.mode)[0], self.task, self.state, scene.instructions[self.task])


_engine = functools.lru_cache(maxsize=1)(engine_of)


def run(member: str, mode: str, states: str, where: Workers) -> list[Episode]:
    _, digest = engine_of(member, mode)  # builds it, before others look for it
    path = result_file(f"{member}-board-{mode}", {"member": member, "mode": mode, "sha256": digest, "target": TARGET})
    done = {(e.task, e.state) for e in load(path)} if path.is_file() else set()
    wanted = [(t, s) for s in parse_states(states, False) for t in TASKS]
    closed_loop.append(path, Job.play, [Job(member, mode, *k) for k in wanted if k not in done], where, mode)
    return [e for e in load(path) if (e.task, e.state) in wanted]


def row_of(episodes: list[Episode], fp32: list[Episode]) -> dict:
    a, b = ({(e.task, e.state): e.success for e in of} for of in (episodes, fp32))
    only = [sum(x[k] and not y[k] for k in a.keys() & b.keys()) for x, y in ((a, b), (b, a))]

    def mean(key: str) -> float:
        return statistics.fmean(v for e in episodes if (v := getattr(e, key)) is not None)

    return {"episodes": len(episodes), "solved": sum(e.success for e in episodes), "only_it": only[0],
            "only_fp32": only[1], "p": mcnemar(*only), "jerk": mean("jerk"), "jump": mean("jump"), "step": mean("step")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=["light", "heavy"], default="light")
    parser.add_argument("--states", default="0-3", help="official initial states, e.g. 0-3")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--record", action="store_true", help=f"write {RECORD}")
    workers.add_options(parser)
    arguments = parser.parse_args()
    where = workers.chosen(arguments)
    found = {mode: run(arguments.member, mode, arguments.states, where) for mode in arguments.modes.split(",")}
    rows = {mode: row_of(episodes, found["fp32"]) for mode, episodes in found.items()}
    for mode, r in rows.items():
        print(f"{mode:10} {r['solved']:3}/{r['episodes']:<3} jerk {r['jerk']:5.1f} m/s^3, jump {r['jump']:.3f}, "
              f"step {r['step']:.3f}, p {r['p']:.2f}")
    if arguments.record:
        document = {"member": arguments.member, "target": TARGET, "states": arguments.states, "modes": rows,
                    "machine": machine.describe()}
        write_whole(RECORD, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    importlib.import_module(__spec__.name).main()  # under the name by which workers find its tasks
