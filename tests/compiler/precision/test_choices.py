"""Outputs that are choices: tokens, in a precision that chooses otherwise where two are nearly as good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlart.verify.frames import golden_frames
from vlart.verify.replay import replay

WORDS, WIDTH = 512, 96


class Speaker(nn.Module):
    """state [1,WIDTH] -> the best words of eight heads, and an action that does not depend on them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.heads = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8 * WORDS)
        self.act = nn.Linear(WIDTH, 6)

    def forward(self, state):
        x = torch.tanh(self.body(state))
        return {"action": self.act(x)[None], "written": self.heads(x).view(1, 8, WORDS).argmax(-1)}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[vc.Policy, vc.Bundle]:
    folder = tmp_path_factory.mktemp("choices")
    policy = vc.Policy("speaker", Speaker().eval(), {"state": vc.Source("observation")},
                       {"state": torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))},
                       outputs=("action", "written"))
    (folder / "r.toml").write_text('name = "r"\ndescription = ""\n[precision]\nlayers = "int4"\n', encoding="utf-8")
    return policy, vc.build(policy, recipe=str(folder / "r.toml"), out=folder / "speaker.vlab")


def test_a_precision_may_choose_otherwise_and_engines_choose_as_it_does(built):
    policy, bundle = built
    frames = golden_frames(bundle.path)
    referred = [f for f in frames if "written" in f.references]
    other = 0
    for frame in frames:
        with torch.no_grad():
            want = policy.infer(state=torch.from_numpy(frame.writes["state"].copy()))["written"].numpy()
        assert "action" in frame.expects and "action" in frame.references
        if "written" in frame.expects:
            same = np.array_equal(frame.expects["written"].array, want)
            assert same == ("written" in frame.references)
            other += not same
    assert other and len(referred) < len(frames), "the precision is so coarse that it chooses otherwise"
    assert vc.verify(bundle.path).passed


def test_another_token_is_noticed(built):
    """The control: of a frame that is compared, one of eight tokens is the next one."""
    _, bundle = built
    frames = [f for f in golden_frames(bundle.path) if "written" in f.expects]
    assert replay(bundle.path, frames, bundle.manifest["provenance"]["outputs"]).passed
    expected = frames[0].expects["written"]
    moved = expected.array.copy()
    moved[0, 3] += 1
    wrong = replace(frames[0], expects=frames[0].expects | {"written": replace(expected, array=moved)})
    report = replay(bundle.path, [wrong, *frames[1:]], bundle.manifest["provenance"]["outputs"])
    assert [v.value for v in report.values if not v.passed] == ["written"]
