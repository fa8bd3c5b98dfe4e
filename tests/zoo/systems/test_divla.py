from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, build, changed, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems import divla

CAMERAS, TEXT = set(divla.CAMERAS), {"tokens", "mask"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("divla", tmp_path_factory.mktemp("divla"))


def test_actions_are_those_of_pytorch_and_both_loops_are_found(built):
    table, words = built.table(), divla.SMALL.reasoned
    assert worst(follow(built)) <= FP32
    assert table["vision.top"] == ({"image.top"}, 1)
    assert table["fusion"] == (CAMERAS | TEXT, 1)
    assert table["step.1"] == (CAMERAS | TEXT, words)
    assert table["decode.1"] == (CAMERAS | TEXT | {"state"}, 1)  # modulations of the U-Net
    assert table["step.2"] == (CAMERAS | TEXT | {"state", "noise"}, divla.STEPS)
    weights = {s.name: s.weight_bytes for s in built.bundle.plan.stages}
    unet = sum(p.numel() for n, p in built.policy.observe.unet.named_parameters() if "_modules" in n or "final" in n)
    modulating = sum(p.numel() for n, p in built.policy.observe.unet.named_parameters() if "cond_encoder" in n)
    assert weights["step.2"] == pytest.approx(4 * (unet - modulating), rel=0.02)


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_the_text_ends_where_the_model_says_so(built):
    """Of the robot's loop iterations run up to the end, and the action is that of the words so far."""
    policy, draw, inputs = built.policy, torch.Generator().manual_seed(1), dict(built.policy.example_inputs)
    assert next(s for s in built.bundle.plan.stages if s.name == "step.1").end is not None
    counts = []
    with vc.Session(built.bundle.path, threads=1) as session, torch.no_grad():
        for seed in range(3):
            inputs |= {n: changed(policy, n, draw) for n in policy.sources} if seed else {}
            for name, value in inputs.items():
                session.write(name, value)
            session.step()
            said = policy.infer(**inputs)["reasoning"][0].tolist()
            assert session.read("reasoning")[0].tolist() == said
            count = said.index(divla.SMALL.end) + 1 if divla.SMALL.end in said else divla.SMALL.reasoned
            assert session.stats().stages["step.1"].last_iterations == count
            assert not any(said[count:])
            counts.append(count)
    assert min(counts) < divla.SMALL.reasoned == max(counts)


def test_what_follows_the_end_of_the_text_does_not_count():
    policy = catalogue.load("zoo:divla@tiny")
    model, inputs = policy.observe, dict(policy.example_inputs)
    with torch.no_grad():
        whole = model(**inputs)
        said = whole["reasoning"][0].tolist()
        end = next(i for i, word in enumerate(said) if word in said[i + 1:] or i == 4)
        model.sizes = replace(model.sizes, end=said[end])
        ended = model(**inputs)
        assert ended["reasoning"][0].tolist() == said[: end + 1] + [0] * (len(said) - end - 1)
        assert (ended["action"] - whole["action"]).abs().max() > 1e-3

        model.sizes = replace(model.sizes, reasoned=end + 1)
        assert torch.allclose(model(**inputs)["action"], ended["action"], atol=1e-5)
