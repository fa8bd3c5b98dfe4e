"""Names on the Hugging Face Hub, fetched by huggingface_hub from a server on this machine that speaks its protocol."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

import vlacompile as vc
from tests.samples.hub_server import asked
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.hub import HubName, fetch, name_of
from vlacompile.phases.load_policy import fetch_sources, hub_revisions
from vlart.errors import SourceError

pytest.importorskip("huggingface_hub")

NAME = "robots/act_cube"
WEIGHTS = save({"w": torch.arange(70_000.0)})
STATISTICS = save({"action.mean": torch.ones(2)})
FILES = {
    "config.json": b'{"type": "act", "input_features": {}}', "README.md": b"# A policy", "model.safetensors": WEIGHTS,
    "policy_preprocessor.json": b'{"steps": []}', "policy_postprocessor.json": b'{"steps": [] }',
    "policy_preprocessor_step_3_normalizer_processor.safetensors": STATISTICS,
    "training_state/optimizer_state.safetensors": b"not read", "checkpoints/010000/model.safetensors": b"not read",
}
SMALL = sorted(f for f in FILES if f.startswith(("config", "policy")))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, with `robots/act_cube`."""
    with asked(monkeypatch, tmp_path) as server:
        server.repository(NAME, FILES)
        yield server


@pytest.fixture
def offline(monkeypatch):
    """A function after which HF_HUB_OFFLINE is set."""
    return lambda: monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def get(text: str = NAME, weights: bool = True, said: list[str] | None = None) -> Path:
    name = HubName.parse(text)
    assert name is not None
    return fetch(name, lambda path: weights, [].append if said is None else said.append)


def refusal(text: str = NAME) -> SourceError:
    with pytest.raises(SourceError) as caught:
        get(text)
    assert all(getattr(caught.value, part).strip() for part in ("what", "where", "why", "fix"))
    return caught.value


def whole_or_absent(cache: Path) -> None:
    """No file of the cache has other content than the repository's."""
    for path in cache.rglob("snapshots/*/*"):
        assert path.is_dir() or path.read_bytes() == FILES[path.name], path


@pytest.mark.parametrize("text", ["act", "a/b/c", "./a/b", "../a", "/a/b", "a/b.onnx", "module:make", "a/b@", "a b/c"])
def test_what_cannot_be_a_name_is_a_path(text):
    assert HubName.parse(text) is None


@pytest.mark.parametrize(("text", "repository", "revision"), [
    ("a/b", "a/b", None), ("a-1/b.c_d@main", "a-1/b.c_d", "main"), ("a/b@refs/pr/3", "a/b", "refs/pr/3")])
def test_names(text, repository, revision):
    assert HubName.parse(text) == HubName(repository, revision)


def test_the_files_that_frontends_read_are_fetched(hub):
    path = get()
    assert sorted(p.name for p in path.iterdir()) == sorted([*SMALL, "model.safetensors"])
    assert all((path / f).read_bytes() == FILES[f] for f in [*SMALL, "model.safetensors"])
    assert hub.downloads()[-1] == "model.safetensors"  # after what decides whether they are wanted
    assert str(name_of(path)) == f"{NAME}@{hub.repositories[NAME].branches['main']}"


def test_without_weights_only_small_files_are_downloaded(hub):
    get(weights=False)
    assert sorted(hub.downloads()) == SMALL


def test_a_second_time_nothing_is_downloaded(hub):
    first, before = get(), len(hub.downloads())
    assert get() == first and len(hub.downloads()) == before


def test_progress_says_what_is_downloaded(hub):
    said: list[str] = []
    get(said=said)
    assert said[0] == f"look up {NAME}"
    assert "fetch 4 small files, 0.0 MB" in said and "download model.safetensors 0.3 MB" in said


def test_a_revision_by_branch_and_by_commit(hub):
    old = hub.repositories[NAME].branches["main"]
    new = hub.repositories[NAME].commit(FILES | {"config.json": b'{"type": "act", "n": 2}'}, branch="v2")
    assert (get(f"{NAME}@v2").name, get(f"{NAME}@{old}").name, get(NAME).name) == (new, old, old)
    assert b'"n": 2' in (get(f"{NAME}@v2") / "config.json").read_bytes()


def test_a_branch_that_moved_is_followed_and_the_old_commit_stays(hub):
    first = get()
    new = hub.repositories[NAME].commit(FILES | {"config.json": b'{"type": "act", "n": 2}'})
    before = len(hub.downloads())
    second = get()
    assert second.name == new and hub.downloads()[before:] == ["config.json"]
    assert (first / "config.json").read_bytes() == FILES["config.json"]


def test_a_name_that_is_neither_path_nor_repository_says_both(hub):
    error = refusal("robots/none")
    assert "neither a path nor a model on the Hub" in error.what and hub.endpoint in error.where
    assert "no such file or directory" in error.why and "no token was given" in error.why


def test_a_name_that_no_repository_can_have(hub):
    error = refusal("robots--x/none")
    assert "neither a path nor a name" in error.what and "HFValidationError" in error.why and not hub.served


def test_a_revision_that_does_not_exist(hub):
    assert f'{NAME} has no revision "v9"' in refusal(f"{NAME}@v9").what


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_a_gated_repository(hub, token, monkeypatch, tmp_path):
    hub.repositories[NAME].gated = True
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    error = refusal()
    assert error.what == f"{NAME} is gated" and "accept the terms" in error.fix and "hf auth login" in error.fix
    assert ("no token was given" if token is None else "the token that was given may not read it") in error.why
    whole_or_absent(tmp_path)
    hub.repositories[NAME].accepted.add("hf_right")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS


def test_a_private_repository(hub, monkeypatch):
    hub.repositories[NAME].token = "hf_right"
    assert "a private one: no token was given" in refusal().why
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "the token that was given may not read it" in refusal().why
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_the_hub_refuses(hub, status, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.status = status
    error = refusal()
    assert error.what == f"the Hub does not give {NAME}" and str(status) in error.why and "HF_TOKEN" in error.fix


def test_a_download_that_is_cut_goes_on_where_it_was(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cuts["model.safetensors"] = [100_000]
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS
    assert [first for method, path, first in hub.served if method == "GET" and path.endswith("/model.safetensors")] == [
        0, 100_000]


def test_a_download_that_never_ends_leaves_no_half_file(hub, tmp_path, offline):
    hub.cuts["model.safetensors"] = [100_000] + [0] * 20
    error = refusal()
    assert error.what == "the download of model.safetensors did not end" and "run it again" in error.fix
    whole_or_absent(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    hub.cuts.clear()
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS


def test_a_server_that_fails(hub):
    hub.status = 503
    assert "the Hub cannot be reached" in refusal().what and "503" in refusal().why


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_that_is_sent_with_other_content_is_refused(hub, file):
    hub.instead[file] = FILES[file][:-1] + b"?"
    error = refusal()
    assert file in error.what and "is not what the Hub has" in error.what
    assert Path(error.where).is_file() and error.fix == f"rm {error.where}, then run it again"
    Path(error.where).unlink()
    hub.instead.clear()
    assert (get() / file).read_bytes() == FILES[file]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_that_was_changed_in_the_cache_is_refused(hub, file, offline):
    blob = (get() / file).resolve()
    blob.write_bytes(FILES[file][:-1] + b"?")
    offline()
    assert "its content does not have the digest" in refusal().why and str(blob) == refusal().where


def unplug(hub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


def test_weights_that_do_not_fit_on_the_disk(hub, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000))
    error = refusal()
    assert "do not fit on the disk" in error.what and "HF_HOME" in error.fix
    assert "model.safetensors" not in hub.downloads()


def test_no_network(hub, monkeypatch):
    unplug(hub, monkeypatch)
    error = refusal()
    assert error.what == f'"{NAME}" is no path, and the Hub cannot be reached' and "HF_ENDPOINT" in error.fix


def test_without_network_a_cached_branch_is_offered_and_its_commit_taken(hub, monkeypatch):
    path = get()
    unplug(hub, monkeypatch)
    pinned = re.search(r"the cache has (\S+)", refusal().fix)[1]
    assert pinned == f"{NAME}@{path.name}" and get(pinned) == path


def test_offline_with_cache(hub, offline):
    path, before = get(), len(hub.served)
    offline()
    said: list[str] = []
    assert get(said=said) == path and get(f"{NAME}@{path.name}") == path and len(hub.served) == before
    assert said == [f"take {NAME}@{path.name[:12]} from the cache, offline"]


def test_offline_without_cache(hub, offline):
    offline()
    error = refusal()
    assert "neither a path nor in the cache" in error.what and "HF_HUB_OFFLINE" in error.why and not hub.served


def test_offline_with_a_cache_without_weights(hub, offline):
    get(weights=False)
    offline()
    error = refusal()
    assert "the cache has only a part" in error.what and "model.safetensors" in error.why
    assert get(weights=False).is_dir()


def test_huggingface_hub_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    error = refusal()
    assert "does not exist" in error.what and "pip install 'vlacompile[hub]'" in error.fix


def test_an_existing_path_wins_and_that_is_said(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir(parents=True)
    said: list[str] = []
    source = fetch_sources(NAME, progress=said.append)
    assert Path(source) == Path(NAME) and said == [f"take the path {NAME}, not a name on the Hub"]
    assert fetch_sources(source, progress=said.append) == source and len(said) == 1 and not hub.served


def test_a_type_that_no_frontend_reads_costs_no_weights(hub):
    hub.repository(NAME, FILES | {"config.json": b'{"type": "unheard", "input_features": {}}'})
    with pytest.raises(SourceError, match='type "unheard"'):
        fetch_sources(NAME)
    assert "model.safetensors" not in hub.downloads()


def test_a_repository_that_is_no_checkpoint_costs_no_weights(hub):
    hub.repository(NAME, {"README.md": b"", "model.safetensors": WEIGHTS})
    with pytest.raises(SourceError, match="is not a readable checkpoint"):
        fetch_sources(NAME)
    assert "model.safetensors" not in hub.downloads()


def test_a_checkpoint_in_a_folder_of_a_repository_is_named(hub):
    hub.repository(NAME, {f"final/{f}": FILES[f] for f in SMALL})
    with pytest.raises(SourceError) as caught:
        fetch_sources(NAME)
    assert "except in final" in caught.value.why and f"hf download {NAME} --include 'final/*'" in caught.value.fix


def test_weights_that_hold_the_statistics_are_fetched_for_a_plan_and_that_is_said(hub):
    hub.repository(NAME, {f: FILES[f] for f in ("config.json", "model.safetensors")})
    said: list[str] = []
    assert (Path(fetch_sources(NAME, weights=False, progress=said.append)) / "model.safetensors").is_file()
    assert "the weights are needed: they hold the statistics" in said


def test_revisions_of_several_sources(hub):
    hub.repository(NAME, {f: FILES[f] for f in ("config.json", "model.safetensors")})
    source = fetch_sources({"light": NAME, "heavy": "module:make"})
    assert hub_revisions(source) == {"light": f"{NAME}@{hub.repositories[NAME].branches['main']}"}
    assert hub_revisions("module:make") == {} == hub_revisions(vc.Policy)


def test_the_commands_show_four_lines_and_fetch_no_weights_for_a_plan(hub, cli):
    code, _, err = cli("build", "robots/none")
    assert code == 4 and "look up robots/none" in err
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == ["error", "where", "why", "fix"]
    code, out, _ = cli("plan", "robots/none", "--json")
    assert code == 4 and json.loads(out)["error"] == "SourceError"


def test_the_settings_of_huggingface_hub_hold(hub, tmp_path):
    """As a user has them: in the environment of the process."""
    hub.repositories[NAME].token = "hf_right"
    hub.repository("robots/open", {"config.json": b'{"type": "unheard"}', "policy_preprocessor.json": b"{}"})
    settings = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}

    def call(name: str, **more: str) -> str:
        command = [sys.executable, "-m", "vlacompile.cli.main", "plan", name]
        done = subprocess.run(command, env=settings | more, capture_output=True, text=True, check=False)
        assert done.returncode == 4
        return done.stderr

    assert 'no frontend reads checkpoints of type "unheard"' in call("robots/open")
    assert list((tmp_path / "home" / "hub").rglob("config.json"))
    assert "no token was given" in call(NAME)
    assert "no token was given" not in call(NAME, HF_TOKEN="hf_right")
    before = len(hub.served)
    assert "neither a path nor in the cache" in call("robots/none", HF_HUB_OFFLINE="1") and len(hub.served) == before


def test_another_environment_reads_the_files_that_were_fetched(hub, cli, monkeypatch):
    """Not the branch, which may move; an option with the same text stays."""
    called: list[list[str]] = []
    monkeypatch.setattr("vlacompile.cli.sources.subprocess.call", lambda command: called.append(command) or 0)
    monkeypatch.setattr("vlacompile.frontends.environments.Environment.is_here", lambda self: False)
    monkeypatch.setattr("vlacompile.frontends.environments.Environment.is_installed", lambda self: True)
    hub.repository(NAME, {f: FILES[f] for f in SMALL} | {"config.json": json.dumps({
        "type": "act", "input_features": {}, "output_features": {"action": {"type": "ACTION", "shape": [2]}},
        "normalization_mapping": {"ACTION": "IDENTITY"}}).encode()})
    with pytest.raises(SystemExit) as stop:
        cli("plan", "--recipe", "default", NAME)
    commit = hub.repositories[NAME].branches["main"]
    verb, *rest = called[0][3:]
    assert stop.value.code == 0 and verb == "plan" and rest[:2] == ["--recipe", "default"] and rest[3:] == [
        "--no-weights"]
    assert str(name_of(Path(rest[2]))) == f"{NAME}@{commit}" and not (Path(rest[2]) / "model.safetensors").exists()


def test_heads_beside_the_weights_are_fetched_with_them(hub):
    files = {"config.json": b'{"model_type": "openvla"}', "model-00001-of-00001.safetensors": WEIGHTS,
             "action_head--50000_checkpoint.pt": b"a head", "optimizer.pt": b"not read", "args.bin": b"not read"}
    hub.repository("robots/oft", files)
    path = get("robots/oft", weights=False)
    assert sorted(p.name for p in path.iterdir()) == ["config.json"]
    found = {p.name for p in get("robots/oft").iterdir()}
    assert found == {name for name, content in files.items() if content != b"not read"}


STATISTICS_OF_OPENPI = json.dumps({"norm_stats": {
    name: {"mean": [0.0] * size, "std": [1.0] * size} for name, size in (("state", 8), ("actions", 7))}}).encode()
OPENPI = {"assets/physical-intelligence/libero/norm_stats.json": STATISTICS_OF_OPENPI, "model.safetensors": WEIGHTS}


@pytest.mark.parametrize(("files", "config", "what"), [
    (OPENPI, None, "does not say how it was trained"),
    (OPENPI, "pi0_aloha", "the statistics are not those of the configuration"),
    (OPENPI | {"params/_METADATA": b"{}", "params/d/0": b"not read"}, "pi0_libero", "the weights are JAX's"),
])
def test_a_checkpoint_without_config_json_is_refused_before_its_weights(hub, files, config, what):
    hub.repository("robots/pi", files)
    with pytest.raises(SourceError, match=what):
        fetch_sources("robots/pi", options=CheckpointOptions(openpi_config=config))
    assert "model.safetensors" not in hub.downloads()


def test_a_checkpoint_without_config_json_is_fetched(hub):
    hub.repository("robots/pi", OPENPI)
    path = Path(fetch_sources("robots/pi", options=CheckpointOptions(openpi_config="pi0_libero")))
    assert all((path / name).is_file() for name in OPENPI)
