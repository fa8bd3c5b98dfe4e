"""What N1 and N1.5 have in common."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.checkpoint_matrix import share_of_spread
from tests.samples.shapes import compact
from tests.samples.weights_by_name import draw_weights
from tests.zoo.built import FP32
from tests.zoo.oracles import record_groot as oracle
from vlacompile.zoo.blocks.groot import Groot
from vlacompile.zoo.systems import groot_n1, groot_n1_5

VERSIONS = {"n1": groot_n1, "n1_5": groot_n1_5}


@pytest.fixture(params=VERSIONS)
def version(request) -> str:
    return request.param


@pytest.fixture
def model(version) -> Groot:
    return Groot(VERSIONS[version].SMALL, VERSIONS[version].NAMES).eval()


def test_padding_of_the_instruction_is_not_seen(model, version):
    given = oracle.inputs(VERSIONS[version].SMALL, 0)
    given["mask"] = torch.arange(given["tokens"].shape[1])[None] < 9
    other = given | {"tokens": torch.where(given["mask"], given["tokens"], 1 - given["tokens"].clamp(max=1))}
    seen = given | {"tokens": other["tokens"].roll(1, 1)}
    with torch.no_grad():
        first, second, third = (model.act(**x) for x in (given, other, seen))
    assert torch.equal(first, second) and not torch.allclose(first, third)


def test_actions_and_names_of_weights_are_those_of_the_original(model, version):
    found = json.loads(oracle.RECORDED.read_text(encoding="utf-8"))[version]
    draw_weights(model)
    assert compact({n: p.shape for n, p in model.named_parameters()}) == found["weights"]
    with torch.no_grad():
        got = np.stack([model.act(**oracle.inputs(VERSIONS[version].SMALL, seed))[0, ::oracle.EVERY].numpy()
                        for seed in range(oracle.SEEDS)])
    assert share_of_spread(got, np.array(found["chunks"])) < FP32
