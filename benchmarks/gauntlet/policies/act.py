"""ACT (Zhao et al., RSS 2023), with cameras, as imitate_episodes.py evaluates it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("ACT", "tonyzhaozh/act", "742c753c0d4a5d87076c8f69e5628c79a8cc5488")

CAMERAS = ["top", "left_wrist"]


def make(checkout: Path) -> vc.Policy:
    with importable(checkout, checkout / "detr", stubs=("IPython",)):
        import util.misc

        util.misc.is_main_process = lambda: False  # the main process would download pretrained weights
        import policy as act
        from detr.models import build_ACT_model

        # the original parses the command line and moves the model to a GPU
        act.build_ACT_model_and_optimizer = lambda args: (build_ACT_model(SimpleNamespace(**args)), None)
        policy = act.ACTPolicy({
            "lr_backbone": 1e-5, "backbone": "resnet18", "dilation": False, "position_embedding": "sine",
            "masks": False, "hidden_dim": 64, "dim_feedforward": 128, "dropout": 0.1, "nheads": 8, "enc_layers": 4,
            "dec_layers": 7, "pre_norm": False, "num_queries": 20, "kl_weight": 10, "camera_names": CAMERAS})
    policy.eval()

    def infer(qpos, top, left_wrist):
        return {"action": policy(qpos, torch.stack([top, left_wrist], 1))}

    image = torch.rand(1, 3, 96, 128)
    return vc.Policy("act", infer, {
        "qpos": vc.Source("observation"), "top": vc.Source("observation"), "left_wrist": vc.Source("observation")},
        {"qpos": torch.randn(1, 14), "top": image, "left_wrist": image.flip(-1)})
