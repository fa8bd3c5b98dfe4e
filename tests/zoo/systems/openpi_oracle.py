"""What the zoo's pi0 and pi0.5 answer with the weights and statistics of a recording of openpi's code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.frontends.openpi.cases import SEEDS, noise, observation, statistics
from tests.frontends.openpi.checkpoints import RECORDED, write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.model import load, sizes_of
from vlacompile.frontends.openpi.settings import settings_of
from vlacompile.frontends.tensor_files import weights_in
from vlacompile.zoo.blocks.prefix_lm import OpenPi


def loaded(case: str, folder: Path) -> OpenPi:
    files = weights_in(write(case, folder / "29999"))
    sizes = sizes_of(files)
    settings = settings_of(sizes.kind, CheckpointOptions(openpi_config=case), case, {})
    model = OpenPi(sizes, settings).eval()
    kept = model.state_dict()
    lacks = model.load_state_dict(load(files, sizes, settings.horizon, settings.steps, True).state_dict(), strict=False)
    assert not lacks.unexpected_keys and set(lacks.missing_keys) == {n for n, _ in model.named_buffers()} & set(kept)
    known = statistics(case)["norm_stats"]
    keys = {"low": "q01", "high": "q99"} if settings.quantiles else {"mean": "mean", "std": "std"}
    for own, name in ((model.state_statistics, "state"), (model.action_statistics, "actions")):
        for buffer, key in keys.items():
            getattr(own, buffer).copy_(torch.tensor(known[name][key][: len(getattr(own, buffer))]))
    return model


@torch.no_grad()
def shares(case: str, folder: Path) -> np.ndarray:
    """[answer, recording]: the largest difference in shares of the spread of its dimension."""
    model, recorded, found = loaded(case, folder), np.array(RECORDED[case]["actions"]), []
    for seed in SEEDS:
        seen, ids = observation(case, seed), RECORDED[case]["ids"][seed]
        length = model.settings.prompt_tokens
        inputs = {f"image.{n}": torch.from_numpy(f)[None] for n, f in seen["frames"].items()}
        inputs |= {"tokens": torch.tensor([ids + [0] * (length - len(ids))]),
                   "mask": torch.arange(length)[None] < len(ids), "state": torch.from_numpy(seen["state"])[None],
                   "noise": torch.from_numpy(noise(model.horizon, seed))}
        found.append(model(**inputs)["action"][0].numpy())
    return (np.abs(np.stack(found)[:, None] - recorded[None]) / recorded.std((0, 1))).max((2, 3))
