"""A LeRobot policy that somebody exported to ONNX: read back, compiled, and held against onnxruntime on that file."""

from __future__ import annotations

import numpy as np
import pytest

import vlacompile as vc
from tests.environments.lerobot.checkpoints import write
from tests.samples.onnx_models import export, original
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.phases.load_policy import load_policy
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")


@pytest.fixture(scope="module", params=["act", "diffusion"])
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    settings = {"num_inference_steps": 4} if request.param == "diffusion" else {}
    write(request.param, folder / "pretrained_model", **settings)
    path = export(load_policy(folder / "pretrained_model"), folder / f"{request.param}.onnx")
    return request.param, path, vc.build(path, out=folder / "a.vlab")


def test_actions_are_those_of_onnxruntime(built):
    _, path, bundle = built
    policy = load_policy(path)
    rng, answers = np.random.default_rng(0), []
    with vc.Session(bundle.path) as session:
        for _ in range(2):
            given = {n: rng.integers(0, 256, t.shape, dtype=np.uint8) if t.numpy().dtype == np.uint8 else
                     rng.standard_normal(t.shape).astype(np.float32) for n, t in policy.example_inputs.items()}
            want = original(path, given)["action"]
            for name, array in given.items():
                session.write(name, array)
            session.step()
            answers.append((session.read("action"), want))
    for got, want in answers:
        assert compare(got, want).within(tolerance("f32", "chunk").limit(want)), compare(got, want)
    assert not compare(answers[0][0], answers[1][1]).within(tolerance("f32", "chunk").limit(want))


def test_the_loop_is_found_again(built):
    """Of the last denoising step the exporter has simplified the schedule's zero and one away: it stays outside."""
    kind, _, bundle = built
    assert max(s.iterations for s in bundle.plan.stages) == {"act": 1, "diffusion": 3}[kind]
