"""X-VLA checkpoints as the authors' own code saves them, against what that code did with them.

xvla.json was recorded by record_xvla.py: config.json as saved, names and shapes of the weights, and for each kind of
action those of three observations. Weights are drawn by name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot061 import record_xvla as recorded
from tests.environments.lerobot061.test_parity import SHARE
from tests.samples.shapes import compact
from tests.samples.weights_by_name import weight
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.xvla.read import make, open_checkpoint
from vlacompile.phases.load_policy import load_policy
from vlacompile.pipeline import plan
from vlart.errors import VlaError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
FOUND = json.loads(recorded.RECORDED.read_text(encoding="utf-8"))


def options_of(case: str, **changed) -> CheckpointOptions:
    said = {"domain": recorded.DOMAIN, "images": recorded.CASES[case]["images"], "steps": recorded.STEPS} | changed
    return CheckpointOptions(xvla_config=",".join(f"{k}={v}" for k, v in said.items()))


def write(folder: Path, case: str = "ee6d") -> Path:
    saved = folder / "checkpoint"
    saved.mkdir()
    with lerobot_importable():
        recorded.processor_files(saved)
    (saved / "config.json").write_text(json.dumps(FOUND[case]["config"]), encoding="utf-8")
    weights(saved, case)
    return saved


def weights(saved: Path, case: str = "ee6d", change=lambda tensors: None) -> None:
    tensors = {n: weight(n, shape) for n, shape in FOUND[case]["weights"].items()}
    change(tensors)
    save_file(tensors, saved / "model.safetensors")


@pytest.mark.parametrize("case", variants(recorded.CASES, ["ee6d", "joint"]))
def test_actions_are_those_of_the_authors_code(tmp_path, case, record_property):
    saved, wants = write(tmp_path, case), np.array(FOUND[case]["actions"])
    bundle, seconds = timed(lambda: vc.build(saved, out=tmp_path / "a.vlab", options=options_of(case)))
    chunks, numbers = [], FOUND[case]["weights"]["transformer.action_decoder.bias.weight"][1]
    for seed in range(recorded.SEEDS):
        frames, state = recorded.observation(seed, recorded.CASES[case]["images"], numbers)
        noise = torch.randn(1, 8, numbers, generator=torch.Generator().manual_seed(1))
        with vc.Session(bundle.path) as session:
            for i, frame in enumerate(frames):
                session.write(f"observation.images.image{i}", frame[None])
            session.write("observation.state", state[None])
            session.write("noise", noise.numpy())
            session.write_text("observation.language.tokens", recorded.INSTRUCTION)
            session.step()
            chunks.append(np.stack([session.pop() for _ in range(8)])[:: recorded.EVERY])
    share = share_of_spread(np.array(chunks), wants)
    assert (wants.std((0, 1)) > 0.002).all() and share < SHARE
    compared(record_property, bundle, share, files="X-VLA 2toINF", policy=f"xvla-{case}", oracle="X-VLA 2toINF",
             seconds=seconds)


def test_another_robot_has_other_actions(tmp_path):
    saved, chunks = write(tmp_path), []
    for domain in (2, 1):
        policy = load_policy(saved, options=options_of("ee6d", domain=domain))
        with torch.no_grad():
            chunks.append(policy.observe(**policy.example_inputs)["action"][0].numpy())
    assert (np.abs(chunks[0] - chunks[1]).max(0) > 10 * SHARE * np.ptp(chunks[0], 0)).any()


def edit(file: str, change):
    def apply(saved: Path) -> None:
        content = json.loads((saved / file).read_text(encoding="utf-8"))
        change(content)
        (saved / file).write_text(json.dumps(content), encoding="utf-8")

    return apply


BIAS = "transformer.action_decoder.bias.weight"
DAMAGES = {
    "no weights": (lambda s: (s / "model.safetensors").unlink(), "has no weights"),
    "cut weights": (lambda s: (s / "model.safetensors").write_bytes(b"\x10"), "cannot be read"),
    "a missing weight": (lambda s: weights(s, change=lambda t: t.pop(BIAS)), f"1 weights missing.*{BIAS}"),
    "an unknown weight": (lambda s: weights(s, change=lambda t: t.update(more=torch.zeros(2))), "1 unknown: more"),
    "a weight of another shape": (lambda s: weights(s, change=lambda t: t.update({BIAS: torch.zeros(4, 9)})),
                                  "do not fit config.json"),
    "no backbone": (edit("config.json", lambda c: c.pop("florence_config")), "has no sizes of the backbone"),
    "another action": (edit("config.json", lambda c: c.update(action_mode="ee7d")), 'action_mode = "ee7d" is not'),
    "words for sizes": (edit("config.json", lambda c: c.update(depth="two")), "depth = 'two' is no size"),
    "no image settings": (lambda s: (s / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
    "oblong frames": (edit("preprocessor_config.json", lambda c: c["size"].update(width=32)), "resized to a square"),
    "no deviation": (edit("preprocessor_config.json", lambda c: c.update(image_std=[0, 1, 1])), "are no three numbers"),
    "no tokenizer": (lambda s: (s / "tokenizer.json").unlink(), "there is no tokenizer.json"),
    "fewer layers": (edit("config.json", lambda c: c.update(depth=1)), "do not fit config.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(tmp_path, damage):
    saved = write(tmp_path)
    change, message = DAMAGES[damage]
    change(saved)
    with pytest.raises(VlaError) as error:
        load_policy(saved, options=options_of("ee6d"))
    assert re.search(message, f"{error.value.what}: {error.value.why}") and str(error.value).count("\n") == 3


def test_what_the_files_do_not_say_is_asked(tmp_path):
    saved = write(tmp_path)
    for text, message in ((None, "domain, images is not given"), ("domain=2", "images is not given"),
                          ("domain=9,images=2", "domain=9 has no weights"), ("domain=2,images=4", "more than 3"),
                          ("domain=2,views=2", "is not key=value")):
        with pytest.raises(VlaError, match=message):
            open_checkpoint(saved, options=CheckpointOptions(xvla_config=text))
    with pytest.raises(VlaError, match="does not apply"):
        open_checkpoint(saved, options=CheckpointOptions(frame="64x64"))


def test_plan_needs_no_weights(tmp_path):
    saved = write(tmp_path)
    (saved / "model.safetensors").unlink()
    assert plan(saved, weights=False, options=options_of("ee6d")).stages


def test_weights_of_the_real_size_are_those_of_the_authors_code(tmp_path):
    """Of the transformer under the same names; of Florence 2, which has other names here, as many numbers."""
    saved = write(tmp_path)
    (saved / "model.safetensors").unlink()
    (saved / "config.json").write_text(json.dumps(FOUND["real"]["config"]), encoding="utf-8")
    opened = open_checkpoint(saved, False, CheckpointOptions(xvla_config="domain=0,images=3"))
    with lerobot_importable(), weightless():
        named = dict(make(opened).named_parameters())
    found = compact({n: p.shape for n, p in named.items() if n.startswith("transformer.")})
    assert found == {n: s for n, s in FOUND["real"]["weights"].items() if n.startswith("transformer.")}
