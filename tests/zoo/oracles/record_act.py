"""Runs the authors' ACT on seeded inputs:

    git clone https://github.com/tonyzhaozh/act && git -C act checkout 742c753
    .venv/environments/gauntlet/bin/python -m tests.zoo.oracles.record_act act
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.gauntlet.importing import importable
from tests.zoo.oracles.recorded import fill, grey_levels, numbers, write

FRAME, STATES, CHUNK, CAMERAS = (96, 128, 3), 14, 100, 4
MEAN, STD = torch.linspace(-0.4, 0.6, STATES), torch.linspace(0.01, 1.2, STATES)  # of states and of actions


@torch.no_grad()
def record(checkout: Path) -> None:
    with importable(checkout, checkout / "detr", stubs=("IPython",)):
        import util.misc

        util.misc.is_main_process = lambda: False  # the main process would download pretrained weights
        import policy as act
        from detr.models import build_ACT_model

        act.build_ACT_model_and_optimizer = lambda args: (build_ACT_model(SimpleNamespace(**args)), None)
        policy = act.ACTPolicy({
            "hidden_dim": 32, "dim_feedforward": 64, "nheads": 4, "enc_layers": 2, "dec_layers": 2,
            "lr_backbone": 1e-5, "backbone": "resnet18", "dilation": False, "position_embedding": "sine",
            "masks": False, "dropout": 0.1, "pre_norm": False, "num_queries": CHUNK, "kl_weight": 10,
            "camera_names": [str(i) for i in range(CAMERAS)]})
    fill(policy.model)
    images = torch.stack([grey_levels(i, *FRAME) for i in range(CAMERAS)])
    # as eval_bc prepares an observation and reads the answer
    qpos = (numbers(9, 1, STATES) - MEAN) / STD
    chunk = policy(qpos, (images / 255.0).permute(0, 3, 1, 2)[None]) * STD + MEAN
    import torchvision

    write("act", checkout, chunk[0], torchvision=torchvision.__version__)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
