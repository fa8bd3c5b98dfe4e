"""GR00T N1.5: what its checkpoint leaves to other files, and what is left of other embodiments."""

from __future__ import annotations

import json

import pytest

import vlacompile as vc
from tests.environments.lerobot.checkpoints import write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.read import open_checkpoint, read_policy, tokens_of
from vlacompile.pipeline import plan
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groot") / "pretrained_model"
    write("groot", folder, embodiments=2)
    return folder


@pytest.fixture
def changed(checkpoint):
    """changed(file, key, value): the checkpoint with another value in a file, until the test ends."""
    before = {}

    def change(file: str, key: str, value) -> None:
        path = checkpoint / file
        before.setdefault(path, path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")

    yield change
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


@pytest.mark.full
def test_bundle_has_the_weights_of_one_embodiment(checkpoint, tmp_path):
    """As many bytes of weights from a checkpoint of eight embodiments as from one of two."""
    write("groot", tmp_path / "eight", embodiments=8)
    sizes = []
    for folder in (checkpoint, tmp_path / "eight"):
        bundle = vc.build(folder, out=tmp_path / f"{folder.parent.name}.vlab")
        sizes.append(sum(w.type.bytes for w in bundle.plan.weights))
    assert sizes[0] == sizes[1]


def test_the_other_embodiments_are_dropped(tmp_path):
    found = {}
    for embodiments in (8, 3):
        write("groot", tmp_path / str(embodiments), embodiments=embodiments, weights=False)
        found[embodiments] = plan(tmp_path / str(embodiments), weights=False).parameters
    more = found[8]["all"] - found[3]["all"]
    assert more > 0 and found[8] == found[3] | {"all": found[8]["all"], "dropped": found[3]["dropped"] + more}


def test_sizes_that_were_not_downloaded(checkpoint, changed):
    changed("config.json", "base_model_path", "nvidia/no-such-model")
    with pytest.raises(SourceError, match="nvidia/no-such-model is not on this machine"):
        read_policy(checkpoint)


def test_frames_of_another_size_are_refused(checkpoint, changed):
    features = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["input_features"]
    features["observation.images.base"]["shape"] = [3, 480, 640]
    changed("config.json", "input_features", features)
    with pytest.raises(SourceError, match="observation.images.base is 480x640"):
        read_policy(checkpoint)


def test_queue_that_would_keep_the_end_is_refused(checkpoint, changed):
    changed("config.json", "n_action_steps", 8)
    with pytest.raises(SourceError, match="n_action_steps is 8"):
        read_policy(checkpoint)


def test_instruction_that_does_not_fit(checkpoint):
    opened, _ = open_checkpoint(checkpoint)
    assert tokens_of(opened, "open the drawer")["observation.language.attention_mask"].sum() < 40
    with pytest.raises(SourceError, match="too long"):
        tokens_of(opened, "open the drawer and " * 30)


