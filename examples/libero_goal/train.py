"""Trains the fusion head of one member on collected demonstrations; resumable.

    python -m examples.libero_goal.train --member light

The encoders are frozen, so their outputs are computed once and cached in build/libero_goal/features/
(raw frames, and shifted and colour-jittered versions). Loss: smooth L1 on the chunk, plus the
displacement of the hand over the same steps through an auxiliary output that inference does not use.
Cosine schedules, the second from a lower rate; the training state is saved every 500 iterations.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from examples.libero_goal.collect import DATA
from examples.libero_goal.encoders import LANGUAGE_ENCODERS, ImageEncoder, tokenize
from examples.libero_goal.head import CHUNK, PER_QUERY, PREDICTED, FusionHead
from examples.libero_goal.policy import checkpoint

WORK = Path("build/libero_goal")
VERSIONS = 3  # versions per frame: the raw one and two augmented ones
SHIFT = 4  # pixels
DISPLACEMENT_UNIT = 0.1  # metres
BATCH, WARMUP, WEIGHT_DECAY, CLIP = 64, 50, 1e-2, 1.0
STATE_NOISE = 0.05  # standard deviations
SAVE_EVERY = 500
RESTART = 2 / 3  # learning rate at the start of later cycles, relative to the first
# The instructions are the suite's own; they are written out so that training needs no simulator.
INSTRUCTIONS = {
    0: "open the middle drawer of the cabinet", 1: "put the bowl on the stove",
    2: "put the wine bottle on top of the cabinet", 3: "open the top drawer and put the bowl inside",
    4: "put the bowl on top of the cabinet", 5: "push the plate to the front of the stove",
    6: "put the cream cheese in the bowl", 7: "turn on the stove", 8: "put the bowl on the plate",
    9: "put the wine bottle on the rack",
}


@dataclass(frozen=True)
class Samples:
    """N frames. features f16 [N,VERSIONS,2,64,112]; states f32 [N,9]; actions f32 [N,H,len(PREDICTED)];
    displacements f32 [N,H,3]; tasks [N]."""

    features: torch.Tensor
    states: torch.Tensor
    actions: torch.Tensor
    displacements: torch.Tensor
    tasks: torch.Tensor


def _augment(frames: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """uint8 [N,128,128,3] -> augmented: shifted by up to SHIFT pixels, with random brightness and tint."""
    size = frames.shape[1]
    padded = F.pad(frames.permute(0, 3, 1, 2).float(), (SHIFT,) * 4, mode="replicate").permute(0, 2, 3, 1)
    at = torch.randint(0, 2 * SHIFT + 1, (len(frames), 2), generator=draw)
    moved = torch.stack([p[y: y + size, x: x + size] for p, (y, x) in zip(padded, at.tolist(), strict=True)])
    gain = 1 + 0.1 * torch.randn(len(frames), 1, 1, 1, generator=draw)
    tint = 6 * torch.randn(len(frames), 1, 1, 3, generator=draw)
    return (moved * gain + tint).clamp(0, 255).to(torch.uint8)


def features_of(path: Path, encoder: ImageEncoder) -> torch.Tensor:
    """f16 [F,VERSIONS,2,64,112] of one demonstration, cached on disk."""
    cached = WORK / "features" / f"{path.stem}.pt"
    if cached.is_file():
        return torch.load(cached, weights_only=True)
    with np.load(path) as demo:
        frames, seed = torch.from_numpy(demo["frames"]), int(demo["seed"])
    flat, draw = frames.flatten(0, 1), torch.Generator().manual_seed(seed)
    versions = [flat] + [_augment(flat, draw) for _ in range(VERSIONS - 1)]
    with torch.no_grad():
        encoded = [torch.cat([encoder(part) for part in v.split(4)]).half().unflatten(0, (-1, 2)) for v in versions]
    out = torch.stack(encoded, 1)
    cached.parent.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(".part")
    torch.save(out, partial)
    partial.rename(cached)
    return out


def load_samples(data: Path) -> Samples:
    encoder = ImageEncoder()
    rows: dict[str, list] = {k: [] for k in ("features", "states", "actions", "displacements", "tasks")}
    for path in tqdm(sorted(data.glob("*.npz")), desc="features", mininterval=5):
        rows["features"].append(features_of(path, encoder))
        with np.load(path) as demo:
            at, states, actions = demo["frame_steps"], demo["states"], demo["actions"]
            task = int(demo["task"])
        # Beyond the end of the episode: no motion, the gripper unchanged.
        rest = np.zeros((CHUNK, actions.shape[1]), np.float32)
        rest[:, -1] = actions[-1, -1]
        actions = np.concatenate([actions, rest])[:, list(PREDICTED)]
        hand = np.concatenate([states[:, :3], np.repeat(states[-1:, :3], CHUNK, 0)])
        rows["states"].append(states[at])
        rows["actions"].append(np.stack([actions[i: i + CHUNK] for i in at]))
        rows["displacements"].append(np.stack([hand[i + 1: i + 1 + CHUNK] - hand[i] for i in at]) / DISPLACEMENT_UNIT)
        rows["tasks"].append(np.full(len(at), task))
    if not rows["tasks"]:
        raise SystemExit(f"no demonstrations in {data}: run python -m examples.libero_goal.collect first")

    def joined(key: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(rows[key]).astype(np.float32))

    return Samples(torch.cat(rows["features"]), joined("states"), joined("actions"), joined("displacements"),
                   torch.from_numpy(np.concatenate(rows["tasks"])))


def encode_instructions(member: str, tasks: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(f32 [len(tasks),L,width], mask bool [len(tasks),L])"""
    encoder = LANGUAGE_ENCODERS[member]()
    pairs = [tokenize(member, INSTRUCTIONS[t]) for t in tasks]
    with torch.no_grad():
        words = torch.cat([encoder(ids, mask) for ids, mask in pairs])
    return words, torch.cat([mask for _, mask in pairs])


@dataclass
class Run:
    """One training run and its state. settings: everything that determines it."""

    member: str
    settings: dict
    head: FusionHead
    extra: nn.Linear  # decoded query -> displacement of the hand; not part of the policy
    optimiser: torch.optim.Optimizer
    draw: torch.Generator
    done: int = 0
    loss: float = math.nan

    @property
    def path(self) -> Path:
        return WORK / f"train_{self.member}.pt"

    def save(self) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        torch.save({"settings": self.settings, "head": self.head.state_dict(), "extra": self.extra.state_dict(),
                    "draw": self.draw.get_state(),
                    "optimiser": self.optimiser.state_dict(), "done": self.done, "loss": self.loss}, partial)
        partial.rename(self.path)

    def resume(self) -> None:
        if self.path.is_file():
            state = torch.load(self.path, weights_only=True)
            if {**state["settings"], "cycles": 0} != {**self.settings, "cycles": 0}:
                raise SystemExit(f"{self.path} belongs to another run ({state['settings']}); this one is "
                                 f"{self.settings}: delete the file to start again")
            self.head.load_state_dict(state["head"])
            self.extra.load_state_dict(state["extra"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.draw.set_state(state["draw"])
            self.done, self.loss = state["done"], state["loss"]


def start(member: str, width: int, vision_width: int, settings: dict) -> Run:
    torch.manual_seed(settings["seed"])
    head = FusionHead(vision_width, width)
    extra = nn.Linear(head.out.in_features, PER_QUERY * 3)
    parameters = [*head.parameters(), *extra.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings["rate"], weight_decay=WEIGHT_DECAY)
    return Run(member, settings, head, extra, optimiser, torch.Generator().manual_seed(settings["seed"]))


def train(run: Run, samples: Samples, words: torch.Tensor, masks: torch.Tensor, tasks: list[int]) -> None:
    by_task = [torch.nonzero(samples.tasks == t).flatten() for t in tasks]
    std, iterations, rate = run.head.state_std, run.settings["iterations"], run.settings["rate"]
    total = iterations * run.settings["cycles"]
    bar = tqdm(range(run.done, total), initial=run.done, total=total, desc=run.member, mininterval=10)
    for i in bar:
        for group in run.optimiser.param_groups:
            cycle, at = divmod(i, iterations)
            cosine = 0.5 * (1 + math.cos(math.pi * at / iterations))
            peak = rate * (RESTART if cycle else 1.0)
            group["lr"] = peak * min(1.0, (at + 1) / WARMUP) * (0.98 * cosine + 0.02)
        # Sample tasks uniformly, whatever the number of their demonstrations.
        which = torch.randint(0, len(tasks), (BATCH,), generator=run.draw)
        picks = torch.stack([by_task[t][torch.randint(0, len(by_task[t]), (1,), generator=run.draw)]
                             for t in which])[:, 0]
        version = torch.randint(0, VERSIONS, (BATCH,), generator=run.draw)
        seen = samples.features[picks, version].float()
        state = samples.states[picks] + torch.randn(BATCH, len(std), generator=run.draw) * STATE_NOISE * std
        decoded = run.head.decode([seen[:, 0], seen[:, 1]], words[which], masks[which], state)
        action = F.smooth_l1_loss(run.head.actions(decoded), samples.actions[picks], beta=0.1)
        moved = F.smooth_l1_loss(run.extra(decoded).view(BATCH, CHUNK, 3), samples.displacements[picks], beta=0.1)
        run.optimiser.zero_grad()
        (action + moved).backward()
        nn.utils.clip_grad_norm_([*run.head.parameters(), *run.extra.parameters()], CLIP)
        run.optimiser.step()
        run.done = i + 1
        run.loss = action.item() if math.isnan(run.loss) else 0.98 * run.loss + 0.02 * action.item()
        if run.done % SAVE_EVERY == 0:
            bar.set_postfix(action_loss=round(run.loss, 4))
            run.save()
    run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=sorted(LANGUAGE_ENCODERS), required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--iterations", type=int, default=12000, help="per cycle")
    parser.add_argument("--cycles", type=int, default=2, help="consecutive cosine schedules; a finished run "
                        "continues if this is raised")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features-only", action="store_true", help="encode the frames and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    samples = load_samples(arguments.data)
    if arguments.features_only:
        return
    tasks = sorted(set(samples.tasks.tolist()))
    words, masks = encode_instructions(arguments.member, tasks)
    demos = "".join(sorted(p.name for p in arguments.data.glob("*.npz")))
    settings = {"tasks": tasks, "frames": len(samples.tasks), "demonstrations": len(list(arguments.data.glob("*.npz"))),
                "data_sha256": hashlib.sha256(demos.encode()).hexdigest(), "iterations": arguments.iterations,
                "cycles": arguments.cycles, "rate": arguments.rate, "batch": BATCH, "seed": arguments.seed}
    run = start(arguments.member, words.shape[-1], samples.features.shape[-1], settings)
    run.head.state_mean.copy_(samples.states.mean(0))
    run.head.state_std.copy_(samples.states.std(0) + 1e-3)
    run.resume()
    train(run, samples, words, masks, tasks)
    path = checkpoint(run.member)
    path.parent.mkdir(exist_ok=True)
    settings |= {"member": run.member, "final_action_loss": round(run.loss, 5)}
    save_file({k: v.contiguous() for k, v in run.head.state_dict().items()}, path, {"training": json.dumps(settings)})
    print(f"{path}: {settings}")


if __name__ == "__main__":
    main()
