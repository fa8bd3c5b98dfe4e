"""Names and shapes of openvla-7b and of OpenVLA-OFT's files, as the authors' code has them on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.frontends.openvla.checkpoints import RECORDED
from tests.samples.recorded_weights import unfolded
from vlacompile.frontends.checkpoint_options import NONE
from vlacompile.frontends.openvla.components import PREFIXES, Components, film_weights
from vlacompile.frontends.openvla.model import VISION
from vlacompile.frontends.openvla.read import Checkpoint, load
from vlacompile.frontends.openvla.statistics import Range
from vlacompile.frontends.tensor_files import TensorFiles
from vlart.errors import SourceError

REAL = RECORDED["real-size"]
CONFIG = {"vision_backbone_id": "dinosiglip-vit-so-224px", "text_config": {"model_type": "llama", "vocab_size": 32064}}
PARAMETERS_M = 7541  # of openvla-7b


def files(name: str) -> TensorFiles:
    return TensorFiles(Path(name), {}, unfolded(REAL[name]))


def checkpoint(weights: TensorFiles, components: Components, actions: int = 7) -> Checkpoint:
    range_ = Range((0.0,) * actions, (1.0,) * actions, (True,) * actions)
    moments = ((torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)),) * 2
    return Checkpoint(Path("real"), CONFIG, weights, components, None, "robot", range_, None, moments, NONE)


def components(case: str) -> Components:
    found = {}
    for key, name in (("head", "action_head"), ("proprio", "proprio_projector"), ("noisy", "noisy_action_projector"),
                      ("vision", "vision_backbone")):
        if f"{case}: {name}" in REAL:
            found[key] = files(f"{case}: {name}")
    prefix = PREFIXES["noisy" in found]
    return Components(**found | {"head": found["head"].under(lambda n: n.removeprefix(prefix))})


def test_openvla_7b():
    shapes = unfolded(REAL["openvla-7b"])
    assert round(sum(torch.Size(s).numel() for s in shapes.values()) / 1e6) == PARAMETERS_M
    with torch.device("meta"):
        model, parts = load(checkpoint(files("openvla-7b"), Components()), weights=False)
    assert not parts and len(model.language_model.model.layers) == 32


@pytest.mark.parametrize("case", ["oft-regression", "oft-film", "oft-diffusion"])
def test_openvla_oft(case):
    found, weights = components(case), files("openvla-7b")
    if found.vision is not None:
        weights = weights.instead(film_weights(found.vision), VISION)
    with torch.device("meta"):
        _, parts = load(checkpoint(weights, found, found.action_size()), weights=False)
    assert set(parts) == {k for k in ("head", "proprio", "noisy") if getattr(found, k) is not None}


def test_a_missing_and_an_unknown_name_are_refused():
    """The control."""
    for renamed in ("language_model.model.norm.weight", "projector.fc2.bias"):
        changed = files("openvla-7b").under(lambda n, renamed=renamed: "x" if n == renamed else n)
        with torch.device("meta"), pytest.raises(SourceError, match="not those of this model"):
            load(checkpoint(changed, Components()), weights=False)
