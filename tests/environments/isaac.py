"""What recordings of NVIDIA's code and the tests on them share, whichever GR00T it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vlacompile as vc
from tests.samples.shapes import compact
from tests.samples.weights_by_name import weight
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.groot.read import MASK, STATE, TOKENS, Opened, open_checkpoint
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.phases.load_policy import load_policy
from vlart.errors import SourceError

SEEDS, EVERY = 3, 3  # observations; of a chunk every third step is recorded
INSTRUCTION = "Pick up the red cube!"
CHECKPOINT = Path("checkpoint")
GREY = 12  # side of the areas of one grey level in a frame


def observation(seed: int, cameras: Mapping[str, tuple[int, int]], numbers: int,
                side: int = GREY) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(frames uint8 [H,W,3] of each camera, state f32 [numbers]). side: of areas of one grey level each."""
    draw = np.random.default_rng(seed)
    frames = {}
    for camera, (height, width) in cameras.items():
        coarse = draw.integers(0, 256, (-(-height // side), -(-width // side), 3), dtype=np.uint8)
        frames[camera] = coarse.repeat(side, 0).repeat(side, 1)[:height, :width].copy()
    return frames, draw.standard_normal(numbers).astype(np.float32)


def recorded_chunk(chunk: np.ndarray) -> list[list[float]]:
    return [[float(f"{x:.7g}") for x in row] for row in chunk[::EVERY]]


def asked(policy, seed: int, cameras: Mapping[str, tuple[int, int]], groups: Mapping[str, int],
          frames_each: int = 1) -> list[list[float]]:
    """What the policy of N1.6 or N1.7 answers. groups: sizes of those of the state. frames_each: of a camera, each from
    an observation of its own, the newest last."""
    seen = [observation(seed + 100 * k, cameras, sum(groups.values())) for k in range(frames_each)][::-1]
    state = dict(zip(groups, np.split(seen[-1][1], np.cumsum(list(groups.values()))[:-1]), strict=True))
    torch.manual_seed(1)  # the noise is the first draw
    actions, _ = policy.get_action({"video": {c: np.stack([f[c] for f, _ in seen])[None] for c in cameras},
                                    "state": {n: s[None, None] for n, s in state.items()},
                                    "language": {policy.language_key: [[INSTRUCTION]]}})
    return recorded_chunk(np.concatenate([actions[n][0] for n in groups], -1))


def saved_weights(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {n: list(file.get_slice(n).get_shape()) for n in sorted(file.keys())}


def weights_of(model: torch.nn.Module) -> dict[str, list[int]]:
    """Names and shapes of what is saved of it: a tied head is not."""
    return compact({n: t.shape for n, t in model.state_dict().items() if not n.endswith("lm_head.weight")})


@contextmanager
def in_fp32() -> Iterator[Path]:
    """A folder to record in, which is the current one; within this context bf16 is fp32."""
    with TemporaryDirectory() as folder, chdir(folder), mock.patch.object(torch, "bfloat16", torch.float32):
        yield Path(folder)


def lines(found: dict) -> str:
    """JSON with a line for each key of the first two levels."""
    def said(value) -> str:
        return json.dumps(value, separators=(",", ":"))

    parts = [f'"{k}": ' + ("{\n" + ",\n".join(f"  {said(n)}: {said(c)}" for n, c in v.items()) + "}")
             for k, v in found.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def edit(file: str, change: Callable[[dict], object] | None) -> None:
    """Of the checkpoint in the current folder. None: the file is removed."""
    path = CHECKPOINT / file
    if change is None:
        path.unlink()
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_weights(shapes: Mapping[str, Sequence[int]], change: Callable[[dict], object] = lambda tensors: None) -> None:
    tensors = {n: weight(n, shape) for n, shape in shapes.items()}
    change(tensors)
    save_file(tensors, CHECKPOINT / "model.safetensors")


def opened(options: CheckpointOptions) -> Opened:
    with lerobot_importable():
        return open_checkpoint(CHECKPOINT, options=options)


def compiled(bundle: vc.Bundle, of: Opened, frames: Mapping[str, np.ndarray], state: np.ndarray,
             earlier: Sequence[Mapping[str, np.ndarray]] = ()) -> np.ndarray:
    """[steps / EVERY, d] for INSTRUCTION and the recorded noise. earlier: frames of observations before, oldest
    first."""
    with lerobot_importable():
        ids, mask = of.tokens(INSTRUCTION)
    noise = torch.randn(of.noise, generator=torch.Generator().manual_seed(1))
    with vc.Session(bundle.path) as session:
        for seen in (*earlier, frames):
            for name, frame in seen.items():
                session.write(f"observation.images.{name}", frame[None])
            if seen is not frames:
                session.observe()
        for name, value in ((STATE, state[None]), (TOKENS, ids.numpy()), (MASK, mask.numpy()),
                            ("noise", noise.numpy())):
            session.write(name, value)
        session.step()
        return np.stack([session.pop() for _ in range(of.steps)])[::EVERY]


def of_two_frames(bundle: vc.Bundle, of: Opened, cameras: Mapping[str, tuple[int, int]]) -> np.ndarray:
    """Of a policy that sees the newest frames and those of two observations before: what is between is not seen."""
    chunks = []
    for seed in range(SEEDS):
        newest, before, between = (observation(k, cameras, of.state.shape[1]) for k in (seed, seed + 100, seed + 7))
        chunks.append(compiled(bundle, of, *newest, earlier=(before[0], between[0])))
    return np.array(chunks)


def refused(options: CheckpointOptions) -> str:
    """What is said of the checkpoint in the current folder, in four lines."""
    try:
        load_policy(CHECKPOINT, options=options)
    except SourceError as said:
        assert said.where and said.fix and str(said).count("\n") == 3
        return f"{said.what}: {said.why}"
    raise AssertionError("the checkpoint was read")
