"""Compiled Evo-1 checkpoints against what the authors' code answered (record.py)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.frontends.evo1 import cases
from tests.frontends.evo1.checkpoints import RECORDED, options_of, write
from tests.samples.shapes import compact
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.evo1.model import Evo1, is_unused
from vlacompile.frontends.evo1.read import open_checkpoint
from vlacompile.phases.load_policy import load_policy

pytestmark = pytest.mark.build
SHARE = 1e-4  # of each action dimension's spread


def answers(bundle: vc.Bundle, images: int) -> np.ndarray:
    chunks = []
    for seed in range(cases.SEEDS):
        frames, state = cases.observation(seed, images)
        noise = torch.rand(1, cases.HORIZON * 24, generator=torch.Generator().manual_seed(1))
        with vc.Session(bundle.path) as session:
            for i, frame in enumerate(frames):
                session.write(f"observation.images.image_{i + 1}", frame[None])
            session.write("observation.state", state[None])
            session.write("noise.uniform", noise.numpy())
            session.write_text("observation.language.tokens", cases.INSTRUCTION)
            session.step()
            chunks.append(np.stack([session.pop() for _ in range(cases.HORIZON)])[:: cases.EVERY])
    return np.array(chunks)


@pytest.mark.parametrize("case", cases.CASES)
def test_actions_are_those_of_the_authors_code(tmp_path, monkeypatch, case, record_property):
    monkeypatch.chdir(tmp_path)
    folder, wants = write(case, tmp_path / "evo1"), np.array(RECORDED["actions"][case])
    options = CheckpointOptions(**options_of(case))
    bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab", options=options))
    share = share_of_spread(answers(bundle, cases.CASES[case]["images"]), wants)
    assert (wants.std((0, 1)) > 0.01).all() and share < SHARE
    compared(record_property, bundle, share, files="Evo-1 1bf31c4", policy=f"evo1-{case}", oracle="Evo-1 1bf31c4",
             seconds=seconds)


@pytest.mark.parametrize("case, changed", [("bounds", "images=2,attention=flash"),
                                           ("bounds", "images=1,attention=eager"),
                                           ("flash", "images=1,attention=eager")])
def test_other_answers_to_what_no_file_says_give_other_actions(tmp_path, monkeypatch, case, changed):
    """The tolerance tells them apart."""
    monkeypatch.chdir(tmp_path)
    folder, chunks = write(case, tmp_path / "evo1"), []
    for text in (options_of(case)["evo1_config"], f"{changed},steps={cases.STEPS}"):
        policy = load_policy(folder, options=CheckpointOptions(evo1_config=text))
        with torch.no_grad():
            chunks.append(policy.observe(**policy.example_inputs)["action"][0].numpy())
    assert (np.abs(chunks[0] - chunks[1]).max(0) > 10 * SHARE * np.ptp(chunks[0], 0)).any()


def test_weights_of_the_real_size_are_those_of_the_authors_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write("bounds", tmp_path / "evo1")
    (folder / "mp_rank_00_model_states.pt").unlink()
    (folder / "config.json").write_text(json.dumps(cases.REAL_SIZES | {
        "action_head": "flowmatching", "vlm_name": RECORDED["config"]["vlm_name"]}), encoding="utf-8")
    (tmp_path / RECORDED["config"]["vlm_name"] / "config.json").write_text(json.dumps(cases.REAL), encoding="utf-8")
    opened = open_checkpoint(folder, False, CheckpointOptions(evo1_config="images=2,attention=flash"))
    with weightless():
        found = compact({n: p.shape for n, p in Evo1(opened.sizes).named_parameters()})
    assert found == {n: s for n, s in RECORDED["real"].items() if not is_unused(n)}
