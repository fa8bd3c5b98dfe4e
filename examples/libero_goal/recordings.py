"""Recorded observations of evaluated episodes, with outcomes: offline checks without a simulator.

`load()` reads them; `python -m examples.libero_goal.recordings` (extra `eval`) records them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "recordings" / "recordings.npz"
EPISODES = ((8, 0), (1, 1), (6, 2), (7, 3), (4, 4))  # (task, official initial state)
MEMBERS = ("light", "heavy")


@dataclass(frozen=True)
class Recording:
    """One replan. images: {camera: uint8 [128,128,3]}; state f32 [9]; chunks: {member: f32 [50,7], the PyTorch module's
    output on this observation}. The heavy member acted in the episode; `success` is its outcome."""

    episode: int
    step: int
    task: int
    initial_state: int
    instruction: str
    success: bool
    images: dict[str, np.ndarray]
    state: np.ndarray
    chunks: dict[str, np.ndarray]


def load(path: Path = FILE) -> list[Recording]:
    with np.load(path, allow_pickle=False) as data:
        columns = {k: data[k] for k in data.files}
    return [
        Recording(int(columns["episode"][i]), int(columns["step"][i]), int(columns["task"][i]),
                  int(columns["initial_state"][i]), str(columns["instruction"][i]), bool(columns["success"][i]),
                  {"agentview": columns["agentview"][i], "wrist": columns["wrist"][i]}, columns["state"][i],
                  {m: columns[f"chunk_{m}"][i] for m in MEMBERS})
        for i in range(len(columns["step"]))]


def record() -> None:
    """Run EPISODES with the heavy member; the light one is evaluated on the same observations."""
    from examples.libero_goal.engines import EXECUTE, TorchEngine
    from examples.libero_goal.evaluate import play
    from examples.libero_goal.scene import GoalScene

    scene, engines = GoalScene(), {m: TorchEngine(m) for m in MEMBERS}
    rows: list[dict] = []
    for number, (task, initial_state) in enumerate(EPISODES):
        text, first = scene.instructions[task], len(rows)
        engines["light"].reset(text)

        def observe(images, state, chunk, number=number, task=task, initial_state=initial_state, text=text,
                    first=first):
            chunks = {"chunk_heavy": chunk, "chunk_light": engines["light"].act(images, state)}
            rows.append({"episode": number, "step": (len(rows) - first) * EXECUTE, "task": task,
                         "initial_state": initial_state, "instruction": text, "state": state, **images, **chunks})

        episode = play(scene, engines["heavy"], task, initial_state, text, observe)
        for row in rows[first:]:
            row["success"] = episode.success
        print(f"{text}: {len(rows) - first} replans, {'solved' if episode.success else 'not solved'}", flush=True)
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **{k: np.stack([np.asarray(r[k]) for r in rows]) for k in rows[0]})
    print(f"{FILE}: {len(rows)} observations, {FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    record()
