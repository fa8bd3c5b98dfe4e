"""Collects demonstrations of the scripted expert: one file per kept episode, resumable.

    python -m examples.libero_goal.collect [--workers N]
    python -m examples.libero_goal.collect --pilot heavy --tasks 2,5,7

Objects are placed by the suite's sampler, shifted by up to 12 mm, never at the official initial
states. Most episodes are perturbed (noise on the executed action, short pushes) while the clean
action is recorded, so that the policy learns to recover. With --pilot a trained member acts first
and the expert takes over at a random time, so that the policy learns to recover from its own
mistakes (DAgger, Ross et al. 2011). Only the expert's part is recorded. An episode is kept if the
task is solved in its last state. About 4 CPU-seconds each, most of it rendering.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from examples.libero_goal import closed_loop
from examples.libero_goal.engines import EXECUTE, Engine, command
from examples.libero_goal.expert import STEP_LIMIT, TASKS, Expert
from examples.libero_goal.scene import ACTION_DIM, OPEN, GoalScene
from vlacompile import workers

DATA = Path("build/libero_goal/demos")
FRAME_EVERY = 6  # steps between recorded frames
MOVED = ("akita_black_bowl_1_joint0", "cream_cheese_1_joint0", "plate_1_joint0", "wine_bottle_1_joint0")
NOISE = (0.0, 0.1, 0.25, 0.4)  # standard deviations of the action noise, drawn per episode
QUIET_NOISE = (0.0, 0.0, 0.05, 0.1)  # for tasks in which the expert fails with more noise
QUIET_TASKS = frozenset({5})
SEED_STRIDE = 100_000  # episodes of task t have seeds t * SEED_STRIDE + n
PILOT_SEEDS = {"light": 30_000, "heavy": 60_000}  # added to n if that member acts first
PILOT_REPLANS = (2, 14)  # range of its random number of replans
ATTEMPTS = 2  # attempts of the expert per episode: if it ends without solving the task, it starts again


@dataclass
class Disturbance:
    """Noise and 6-step pushes on the executed actions."""

    rng: np.random.RandomState
    sigma: float
    left: int = 0
    push: np.ndarray | None = None

    def apply(self, action: np.ndarray) -> np.ndarray:
        out = action.copy()
        out[:3] += self.sigma * self.rng.randn(3)
        if self.left == 0 and self.sigma > 0 and self.rng.rand() < 0.01:
            self.left, self.push = 6, self.rng.uniform(-0.7, 0.7, 3)
        if self.left > 0:
            out[:3] += self.push
            self.left -= 1
        return out


def fly(scene: GoalScene, pilot: Engine, task: int, replans: int) -> None:
    """Let a trained member act until it has solved the task, or for `replans` replans."""
    pilot.reset(scene.instructions[task])
    for _ in range(replans):
        for action in pilot.act(scene.images(), scene.state)[:EXECUTE]:
            if scene.success():
                return
            scene.step(command(action))


def record(scene: GoalScene, task: int, seed: int, pilot: Engine | None = None) -> dict[str, np.ndarray] | None:
    """One episode: frames uint8 [F,2,128,128,3], frame_steps [F], states f32 [T,9], actions f32 [T,7];
    None if the task was not solved at the end, or was solved by the pilot alone."""
    rng = np.random.RandomState(seed)
    scene.reset_sampled(task, seed)
    for joint in MOVED:
        scene.move_object(joint, *rng.uniform(-0.012, 0.012, 2))
    start = np.zeros(ACTION_DIM)
    start[:3], start[6] = rng.uniform(-0.6, 0.6, 3), OPEN
    for _ in range(1 + rng.randint(0, 8)):
        scene.step(start)
    if pilot is not None:
        fly(scene, pilot, task, rng.randint(*PILOT_REPLANS))
        if scene.success():
            return None
    expert, phase, attempts = Expert(scene, task), rng.randint(FRAME_EVERY), ATTEMPTS
    disturbance = Disturbance(rng, float(rng.choice(QUIET_NOISE if task in QUIET_TASKS else NOISE)))
    frames, frame_steps, states, actions = [], [], [], []
    for i in range(STEP_LIMIT):
        if i == 0 or i % FRAME_EVERY == phase:
            frames.append(np.stack(list(scene.images().values())))
            frame_steps.append(i)
        states.append(scene.state)
        action, done = expert.act()
        if done and not scene.success() and attempts > 1:
            expert.take_over()
            attempts, (action, done) = attempts - 1, expert.act()
        actions.append(action)
        if done:
            break
        scene.step(disturbance.apply(action))
    if not scene.success():
        return None
    return {"frames": np.stack(frames), "frame_steps": np.array(frame_steps), "states": np.stack(states),
            "actions": np.stack(actions).astype(np.float32), "task": np.array(task), "seed": np.array(seed)}


@dataclass(frozen=True)
class Attempt:
    """One episode, kept in a file of `out` if it succeeds. pilot: the trained member that acts first."""

    task: int
    seed: int
    pilot: str | None
    out: Path

    @property
    def path(self) -> Path:
        return self.out / f"{self.task}_{self.seed}"

    @property
    def is_done(self) -> bool:
        return any(self.path.with_suffix(end).exists() for end in (".npz", ".lost"))

    def record(self) -> bool:
        pilot = closed_loop.engine(self.pilot, "torch") if self.pilot else None
        episode = record(closed_loop.scene(), self.task, self.seed, pilot)
        if episode is None:
            self.path.with_suffix(".lost").touch()
            return False
        partial = self.path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(file, **episode)
        partial.rename(self.path.with_suffix(".npz"))
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(map(str, TASKS)))
    parser.add_argument("--episodes", type=int, default=45, help="attempts per task")
    parser.add_argument("--pilot", choices=sorted(PILOT_SEEDS), help="the trained member that acts first")
    parser.add_argument("--out", type=Path, default=DATA)
    workers.add_options(parser)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    first = PILOT_SEEDS[arguments.pilot] if arguments.pilot else 0
    jobs = [Attempt(t, t * SEED_STRIDE + first + n, arguments.pilot, arguments.out)
            for n in range(arguments.episodes) for t in map(int, arguments.tasks.split(","))]
    jobs = [job for job in jobs if not job.is_done]
    kept = 0
    with tqdm(total=len(jobs), desc="episodes", mininterval=5) as bar:

        def ended(index: int, solved: bool) -> None:
            nonlocal kept
            kept += solved
            bar.update()
            bar.set_postfix(kept=kept)

        workers.chosen(arguments).run(Attempt.record, jobs, done=ended, told=bar.write)


if __name__ == "__main__":
    importlib.import_module(__spec__.name).main()  # under the name by which workers find its tasks
