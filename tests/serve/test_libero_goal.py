"""The recorded LIBERO-Goal episodes through `vlacompile serve` and both real clients: the chunks of a session in this
process, to the last bit. openpi's client runs here, LeRobot's in its environment."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import vlacompile as vc
from examples.libero_goal import recordings
from examples.libero_goal.engines import BundleEngine, LerobotEngine, OpenpiEngine, open_engine
from examples.libero_goal.evaluate import Episode, require_same
from examples.libero_goal.policy import IMAGES, STATE, light
from tests.serve.serving import websocket_server
from vlacompile.frontends.environments import ENVIRONMENTS
from vlart.serve.refusal import Refusal
from vlart.serve.tokenized_texts import own_instructions

pytest.importorskip("openpi_client", reason="openpi's client: pip install --no-deps openpi-client==0.1.2")
pytest.importorskip("grpc", reason="the server needs it: pip install 'vlacompile[serve]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:openpi_client")


@pytest.fixture(scope="module")
def recorded():
    return recordings.load()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    return vc.build(light(), recipe="libero-goal", out=tmp_path_factory.mktemp("libero") / "light.vlab")


@pytest.fixture(scope="module")
def in_process(bundle, recorded) -> list[np.ndarray]:
    return replayed(BundleEngine("light", bundle.path), recorded)


def replayed(engine, rows) -> list[np.ndarray]:
    """The chunk after every recorded observation; each episode begins with its instruction."""
    chunks, episode = [], None
    for row in rows:
        if row.episode != episode:
            engine.reset(row.instruction)
            episode = row.episode
        chunks.append(engine.act(row.images, row.state))
    return chunks


def same(got: list[np.ndarray], want: list[np.ndarray]) -> list[bool]:
    return [g.dtype == w.dtype and np.array_equal(g, w) for g, w in zip(got, want, strict=True)]


def test_openpis_client_replays_every_episode(bundle, recorded, in_process):
    with open_engine("light", f"openpi:{bundle.path}") as engine:
        assert isinstance(engine, OpenpiEngine) and engine.sha256 == bundle.hash
        got = replayed(engine, recorded)
    assert len({r.episode for r in recorded}) == 5 and all(same(got, in_process))


@pytest.mark.skipif(not ENVIRONMENTS["lerobot"].python.is_file(),
                    reason="LeRobot has an environment of its own: vlacompile frontends --install lerobot")
def test_lerobots_client_replays_every_episode(bundle, recorded, in_process):
    with open_engine("light", f"lerobot:{bundle.path}") as engine:
        assert isinstance(engine, LerobotEngine)
        got = replayed(engine, recorded)
    assert all(same(got, in_process))


@pytest.mark.skipif(not ENVIRONMENTS["lerobot"].python.is_file(),
                    reason="LeRobot has an environment of its own: vlacompile frontends --install lerobot")
def test_lerobots_client_says_why_it_ended(recorded):
    """Nobody serves at that port."""
    engine = LerobotEngine("127.0.0.1:1")
    with pytest.raises(SystemExit, match="LeRobot's client ended: no server answers at 127.0.0.1:1"):
        engine.act(recorded[0].images, recorded[0].state)
    engine.close()


@pytest.mark.parametrize("change", ["instruction", "cameras", "one pixel", "state"])
def test_another_observation_through_the_server_is_told_apart(bundle, recorded, in_process, change):
    """Negative control: equality would mean nothing if the server lost an input, or answered from memory."""
    row, images = recorded[2], dict(recorded[2].images)
    text, state = row.instruction, row.state
    if change == "instruction":
        text = "turn on the stove"
    elif change == "cameras":
        images = {"agentview": images["wrist"], "wrist": images["agentview"]}
    elif change == "one pixel":
        images["wrist"] = images["wrist"].copy()
        images["wrist"][64, 64] ^= 0x10
    else:
        state = state + np.float32(1e-3)
    with open_engine("light", f"openpi:{bundle.path}") as engine:
        engine.reset(row.instruction)
        before = engine.act(row.images, row.state)
        engine.reset(text)
        assert same([before, engine.act(images, state)], [in_process[2]] * 2) == [True, False]


def test_text_and_tokens_are_one_instruction(bundle, recorded):
    from examples.libero_goal.encoders import tokenize
    from examples.libero_goal.policy import MASK, TOKENS

    read = own_instructions(bundle)
    for text in sorted({r.instruction for r in recorded}):
        ids, mask = tokenize("light", text)
        found = read(text)
        assert found.keys() == {TOKENS, MASK}
        assert np.array_equal(found[TOKENS], ids) and np.array_equal(found[MASK], mask)
        assert found[TOKENS].dtype == np.int64 and found[MASK].dtype == np.bool_
    for bad in ("put the bowl on the plate and then " * 5, "x" * 3000):
        with pytest.raises(Refusal, match="the instruction cannot be tokenized"):
            read(bad)


def test_a_text_that_does_not_fit_is_refused_and_the_client_may_go_on(bundle, recorded, in_process):
    row = recorded[0]
    frames = {IMAGES[c]: i for c, i in row.images.items()} | {STATE: row.state}
    with websocket_server(bundle, instructions=own_instructions(bundle)) as running:
        client = OpenpiEngine(f"ws://127.0.0.1:{running.place[1]}").client
        with pytest.raises(RuntimeError, match="the instruction cannot be tokenized"):
            client.infer({**frames, "prompt": "put the bowl on the plate and then " * 5})
        with pytest.raises(RuntimeError, match="it is a int"):
            client.infer({**frames, "prompt": 3})
        assert np.array_equal(client.infer({**frames, "prompt": row.instruction})["actions"], in_process[0])
        client._ws.close()


def test_episodes_that_differ_in_a_bit_are_not_the_same(tmp_path, monkeypatch, capsys):
    from examples.libero_goal import evaluate

    monkeypatch.setattr(evaluate, "RUNS", tmp_path)
    lines = {"a": "0" * 64, "b": "0" * 64, "c": "1" * 64, "old": ""}
    for name, actions in lines.items():
        episode = Episode(0, 0, "x", True, 100, 10, actions)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(asdict(episode)) + "\n")
    require_same("a", "b")
    assert "1 episodes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="did not act as a"):
        require_same("a", "c")
    with pytest.raises(SystemExit, match="run both again"):
        require_same("a", "old")
