"""A checkpoint by its name on the Hub: the same policy as from its directory, and its commit is recorded."""

from __future__ import annotations

import json

import pytest

from tests.environments.lerobot.checkpoints import sized, write
from tests.samples.hub_server import asked
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.read import read_policy
from vlacompile.pipeline import build, plan
from vlart.bundle.directory import read_bundle

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
NAME = "robots/act_cube"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("act") / "pretrained_model"
    write("act", path)
    return path


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    with asked(monkeypatch, tmp_path) as server:
        server.repository(NAME, {p.name: p.read_bytes() for p in folder.iterdir()})
        yield server


def test_a_build_by_name_is_the_build_of_its_directory_and_records_the_commit(hub, folder, tmp_path):
    commit = hub.repositories[NAME].branches["main"]
    named, local = build(NAME, out=tmp_path / "named.vlab"), build(folder, out=tmp_path / "local.vlab")
    assert read_bundle(named.path).manifest["provenance"].pop("hub") == {"act": f"{NAME}@{commit}"}
    del named.manifest["provenance"]["hub"]
    assert named.manifest["provenance"] == local.manifest["provenance"]
    assert named.manifest["files"] == local.manifest["files"]
    again = build(f"{NAME}@{commit}", out=tmp_path / "again.vlab")
    assert again.hash == read_bundle(tmp_path / "named.vlab").hash


def test_a_plan_by_name_downloads_no_weights_and_says_the_same(hub, folder):
    assert plan(NAME, weights=False).as_dict() == plan(folder, weights=False).as_dict()
    assert hub.downloads() and "model.safetensors" not in hub.downloads()


def test_the_commit_of_a_tokenizer_on_the_hub_is_recorded(tmp_path, monkeypatch):
    import transformers
    from huggingface_hub import snapshot_download

    folder = tmp_path / "pretrained_model"
    with sized("smolvla", real=False):
        write("smolvla", folder)
        with asked(monkeypatch, tmp_path / "cache") as hub:
            hub.repository("robots/words", {p.name: p.read_bytes() for p in (folder / "backbone").iterdir()})
            assert read_policy(folder).origin["tokenizer"] == "backbone"
            file = folder / "policy_preprocessor.json"
            named = file.read_text(encoding="utf-8").replace(json.dumps(str(folder / "backbone")), '"robots/words"')
            file.write_text(named, encoding="utf-8")
            place = snapshot_download("robots/words")
            load = transformers.AutoTokenizer.from_pretrained  # its settings are those of when it was imported
            monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name, **how: load(
                place if name == "robots/words" else name, **how))
            found = read_policy(folder).origin["tokenizer"]
    assert found == f"robots/words@{hub.repositories['robots/words'].branches['main']}"
