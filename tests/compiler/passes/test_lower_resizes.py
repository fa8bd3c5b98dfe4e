"""Resizes as products with constants: PyTorch's numbers, for images and for bytes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import vlacompile as vc
from tests.samples.live import worst
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.legalise_types import LegaliseTypes
from vlacompile.compiler.passes.lower_resizes import LowerResizes
from vlacompile.compiler.passes.pass_manager import run_passes
from vlacompile.policy.policy import Policy, Source

SIDES = st.integers(2, 23)


def policy(op, x: torch.Tensor) -> Policy:
    return Policy("resize", lambda x: {"action": op(x)}, {"x": Source("observation")}, {"x": x})


def rewritten(op, x: torch.Tensor) -> torch.Tensor:
    """What the program gives whose resizes are written; none is left."""
    made = policy(op, x)
    program, notes = run_passes(capture(made), (LegaliseTypes(), LowerResizes()))
    assert any("LowerResizes: wrote" in note for note in notes)
    return execute(program, {"x": x})[0]["action"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["bilinear", "bicubic"]), SIDES, SIDES, SIDES, SIDES, st.booleans(), st.integers(0, 99))
def test_of_floats(mode, height, width, rows, columns, corners, seed):
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    op = lambda x: F.interpolate(x, (rows, columns), mode=mode, antialias=True, align_corners=corners) * 1.0
    torch.testing.assert_close(rewritten(op, x), op(x), rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["bilinear", "bicubic"]), st.booleans(), SIDES, SIDES, SIDES, SIDES, st.booleans(),
       st.sampled_from(["draws", "extremes"]))
def test_of_bytes_to_the_bit(mode, antialias, height, width, rows, columns, corners, what):
    draw = torch.Generator().manual_seed(height * width)
    x = torch.randint(0, 256, (2, 4, height, width), generator=draw)
    x = (x if what == "draws" else (x > 127) * 255).to(torch.uint8)  # edges overshoot a byte
    op = lambda x: F.interpolate(x, (rows, columns), mode=mode, antialias=antialias, align_corners=corners).float()
    assert torch.equal(rewritten(op, x), op(x))


@pytest.mark.parametrize("size, out", [((96, 96), (76, 76)), ((100, 100), (84, 84)), ((64, 64), (128, 128))])
def test_of_bytes_as_floats_that_are_rounded_again(size, out):
    """torchvision's resize of an image of bytes: where a weight is off by 5e-6, bytes differ."""
    x = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    op = lambda x: F.interpolate(x, out, mode="bilinear", antialias=True).round()
    assert torch.equal(rewritten(op, x), op(x))


@pytest.mark.parametrize("factor", [0.37, (0.5, 1.7), 2.0])
def test_by_a_factor(factor):
    """The factor itself counts, not the sizes that it comes to."""
    x = torch.randn(1, 3, 17, 19, generator=torch.Generator().manual_seed(0))
    op = lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear", antialias=True)
    torch.testing.assert_close(rewritten(op, x), op(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rewritten(lambda x: op(x).mean(1), x), op(x).mean(1), rtol=1e-5, atol=1e-5)


def test_what_engines_have_and_what_no_source_reaches_is_left():
    kept = lambda x: F.interpolate(x, (5, 5), mode="bilinear") + F.interpolate(
        torch.arange(48.0).reshape(1, 3, 4, 4), (5, 5), mode="bicubic", antialias=True)
    program, notes = run_passes(capture(policy(kept, torch.randn(1, 3, 7, 7))), (LegaliseTypes(), LowerResizes()))
    assert not notes and any("upsample" in str(n.target) for n in program.graph.nodes)


class Frames(torch.nn.Module):
    """Bytes are resized before they are numbers, and numbers behind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, image):
        x = image.permute(0, 3, 1, 2)
        small = F.interpolate(x, (11, 13), mode="bilinear", antialias=True).float() / 255
        again = F.interpolate(x.float() / 255, (11, 13), mode="bicubic", antialias=True)
        return {"action": self.conv(small + again).mean((2, 3))[:, None]}


@pytest.mark.parametrize("target", ["host", "orin-nano-8gb+jetpack-6.2"])
def test_through_libvlart(tmp_path, target):
    image = torch.randint(0, 256, (1, 32, 41, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    make = lambda: vc.Policy("frames", Frames().eval(), {"image": vc.Source("observation")}, {"image": image})
    assert worst(make, tmp_path / "p.vlab", target=target) < (1e-5 if target == "host" else 1e-2)
