"""Random sequences of clients, episodes, instructions and refused observations: an action is of this episode alone."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.serve.serving import AVERAGED, averaging
from vlart.errors import RuntimeFailure
from vlart.serve.policy_host import PolicyHost
from vlart.serve.refusal import Refusal

SEQUENCES, CALLS = 400, 12


def test_an_action_is_of_this_client_episode_and_instruction(averaged):
    """The policy's ensemble averages the states that it was given: those of the reference, and no other."""
    rng, host, compared = random.Random(0), PolicyHost(averaged.path, threads=1), 0
    for _ in range(SEQUENCES):
        client, states, token, episode = host.connect(), [], None, 0
        for call in range(rng.randrange(CALLS)):
            word = rng.choice(["see"] * 6 + ["task", "begin", "alone", "missing", "refused"])
            state = float(rng.randrange(100))
            writes = {"state": np.full((1, 2), state, np.float32)}
            if word == "task" or call == 0:
                asked = rng.randrange(1, 4)
                writes["tokens"] = np.full((1, 1), asked, np.int64)
                states, token = states if asked == token else [], asked
            if word == "alone":
                host.begin_episode(client)
                states, episode = [], episode + 1
            if word == "missing" and call:
                with pytest.raises(Refusal):
                    host.submit(client, {"tokens": np.full((1, 1), 9)})
            elif word == "refused" and call:
                with pytest.raises(RuntimeFailure):
                    host.submit(client, {"state": np.full((1, 2), np.nan, np.float32),
                                         "tokens": np.full((1, 1), 9)}).result(10)
            else:
                begins = word == "begin"
                states, episode = ([], episode + 1) if begins else (states, episode)
                states = [*states, state][-AVERAGED:]
                reply = host.submit(client, writes, call, begins).result(10)
                assert reply.outputs["actions"][0, 0] == pytest.approx(1000 * token + np.mean(states), abs=1e-3)
                assert reply.observation == call and reply.episode == episode
                compared += 1
        host.disconnect(client)
    assert host.stop(10) and compared > SEQUENCES


def test_what_is_carried_is_of_one_client_and_its_episode(tmp_path):
    def adds(x: torch.Tensor, total: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": (total + x)[:, None], "total.next": total + x}

    policy = vc.Policy("adds", adds, {"x": vc.Source("observation")}, {"x": torch.ones(1, 2)},
                       carried={"total": vc.Carried("total.next", initial=torch.zeros(1, 2))})
    host = PolicyHost(vc.build(policy, out=tmp_path / "a.vlab").path, threads=1)

    def sums(client, numbers: list[float], begins: bool = False) -> list[float]:
        replies = [host.submit(client, {"x": np.full((1, 2), x, np.float32)}, k, begins and k == 0).result(10)
                   for k, x in enumerate(numbers)]
        return [float(r.outputs["actions"][0, 0]) for r in replies]

    first = host.connect()
    assert sums(first, [1, 2, 3]) == [1, 3, 6]
    with pytest.raises(Refusal, match="in use"):
        host.connect()
    with pytest.raises(RuntimeFailure):
        sums(first, [np.nan])
    assert sums(first, [4]) == [10], "what was refused is no step"
    assert sums(first, [5, 6], begins=True) == [5, 11]
    host.disconnect(first)
    assert sums(host.connect(), [7, 8]) == [7, 15]
    assert host.stop(10)


def test_clients_of_a_policy_without_state_take_turns(late_fusion_bundle):
    """Each other request is another client's: what the session holds of it is no part of the answer."""
    from tests.samples import policies
    from tests.serve.serving import episode_of, in_process

    host = PolicyHost(late_fusion_bundle.path, threads=1)
    episodes = [episode_of(policies.late_fusion(), 6, seed) for seed in range(2)]
    want = [in_process(late_fusion_bundle, e) for e in episodes]
    clients = [host.connect() for _ in episodes]
    for k in range(6):
        for client, episode, chunks in zip(clients, episodes, want, strict=True):
            reply = host.submit(client, episode[k], begins=k == 3).result(10)
            assert np.array_equal(reply.outputs["actions"], chunks[k])
    host.stop(10)


def test_what_a_tick_may_change_is_held_between_the_chunks_of_a_client(tmp_path):
    """Another client's actions in between would end the episode that the limit counts in: there is none."""
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = "r"\n[action]\nexecute = 2\nmax_step = [5.0, 5.0]\n')
    bundle = vc.build(averaging(), recipe=str(tmp_path / "r.toml"), out=tmp_path / "limited.vlab")
    host = PolicyHost(bundle.path, threads=1)
    client, handed = host.connect(), []
    with pytest.raises(Refusal, match="in use"):
        host.connect()
    for state in (0, 500, 90, 91):
        writes = {"state": np.full((1, 2), state, np.float32), "tokens": np.zeros((1, 1), np.int64)}
        handed.extend(host.submit(client, writes).result(10).outputs["actions"])
    steps = np.abs(np.diff(np.stack(handed), axis=0))
    assert steps.max() == pytest.approx(5, rel=1e-5)
    host.disconnect(client)
    assert host.connect().number == client.number + 1 and host.stop(10)


class Leaping(nn.Module):
    """The last action of a chunk is ten times the others."""

    def forward(self, tokens, state) -> dict[str, torch.Tensor]:
        rows = torch.stack([state, state, 10 * state], dim=1)
        return {"action": rows + 0 * tokens[:, :1, None].float()}


def test_a_limit_counts_from_an_action_that_was_sent(tmp_path):
    """A chunk whose last row is refused is not sent: its first ones were nowhere."""
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = "r"\n[action]\nexecute = 3\nmax_step = [5.0, 5.0]\n'
                                     'rate_rule = "refuse"\n')
    policy = averaging()
    leaping = vc.Policy("leaping", Leaping().eval(), policy.sources, policy.example_inputs)
    host = PolicyHost(vc.build(leaping, recipe=str(tmp_path / "r.toml"), out=tmp_path / "l.vlab").path, threads=1)
    client = host.connect()

    def ask(state: float) -> list[float]:
        writes = {"state": np.full((1, 2), state, np.float32), "tokens": np.zeros((1, 1), np.int64)}
        return host.submit(client, writes).result(10).outputs["actions"][:, 0].tolist()

    assert ask(0.5) == [0.5, 0.5, 5.0]
    with pytest.raises(RuntimeFailure, match="too far"):
        ask(4.0)  # 4, 4, 40
    with pytest.raises(RuntimeFailure, match="the last one was 5"):
        ask(-0.3)  # farther from 5 than allowed, and not from 4
    assert ask(0.2) == pytest.approx([0.2, 0.2, 2.0])
    assert host.stop(10)


def test_each_robot_of_a_policy_with_state_has_a_session(averaged):
    """Means of several states: of this robot's alone, while the others ask at the same time."""
    host = PolicyHost(averaged.path, threads=1, sessions=3)
    clients = [host.connect() for _ in range(3)]
    with pytest.raises(Refusal, match="in use") as refused:
        host.connect()
    assert "--sessions" in refused.value.fix
    seen: list[list[float]] = [[] for _ in clients]
    rng = random.Random(0)
    for _ in range(60):
        asked = []
        for client, states in zip(clients, seen, strict=True):
            states.append(float(rng.randrange(100)))
            asked.append(host.submit(client, {"state": np.full((1, 2), states[-1], np.float32),
                                              "tokens": np.full((1, 1), client.number, np.int64)}))
        for client, states, future in zip(clients, seen, asked, strict=True):
            got = future.result(10).outputs["actions"][0, 0]
            assert got == pytest.approx(1000 * client.number + np.mean(states[-AVERAGED:]), abs=1e-3)
    host.disconnect(clients[1])
    assert host.connect().number == 4 and host.stop(10)


def test_a_superseded_observation_is_told_and_its_instruction_and_episode_hold(averaged, monkeypatch):
    host = PolicyHost(averaged.path, threads=1)
    client, entered, release, step = host.connect(), threading.Event(), threading.Event(), vc.Session.step

    def slow(session):
        entered.set()
        assert release.wait(20)
        step(session)

    def ask(state: float, token: int | None = None, begins: bool = False):
        writes = {"state": np.full((1, 2), state, np.float32)}
        return host.submit(client, writes if token is None else writes | {"tokens": np.full((1, 1), token, np.int64)},
                           begins=begins)

    monkeypatch.setattr(vc.Session, "step", slow)
    first = ask(10, 1)
    assert entered.wait(10)
    second, third = ask(20, 2, begins=True), ask(30)
    with pytest.raises(Refusal, match="superseded") as told:
        second.result(10)
    assert told.value.kind == "superseded" and "newer" in told.value.why
    release.set()
    assert first.result(10).outputs["actions"][0, 0] == pytest.approx(1010)
    reply = third.result(10)  # of the instruction, and of the episode, that the superseded one brought
    assert reply.episode == 1 and reply.outputs["actions"][0, 0] == pytest.approx(2030)
    assert host.stop(10)


@pytest.fixture
def guarded(tmp_path):
    """A policy whose tokens choose a row of a table of 8: a session refuses others."""
    torch.manual_seed(0)

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 2)

        def forward(self, tokens, state) -> dict[str, torch.Tensor]:
            return {"action": (state + 10 * self.table(tokens)[:, 0])[:, None].repeat(1, 2, 1)}

    policy = vc.Policy("chosen", Chosen().eval(), {"tokens": vc.Source("task"), "state": vc.Source("observation")},
                       {"tokens": torch.zeros(1, 1, dtype=torch.int64), "state": torch.zeros(1, 2)})
    bundle = vc.build(policy, out=tmp_path / "b.vlab")
    with vc.Session(bundle.path, threads=1) as session:
        want = []
        for token in range(8):
            session.write_all({"tokens": np.full((1, 1), token), "state": np.zeros((1, 2), np.float32)})
            session.step()
            want.append(session.read("action").copy())
    return bundle, np.array(want)


def _asks(host, client, token: int | None = None, state: float = 0.0):
    writes = {"state": np.full((1, 2), state, np.float32)}
    return host.submit(client, writes if token is None else writes | {"tokens": np.full((1, 1), token, np.int64)})


@pytest.mark.parametrize("at", ["before it is written", "after it is written"])
def test_an_instruction_holds_from_the_moment_that_its_observation_is_taken(guarded, monkeypatch, at):
    """A second observation, without an instruction, comes while the first one is being answered."""
    (bundle, want), entered, release = guarded, threading.Event(), threading.Event()
    name = "write_all" if at.startswith("before") else "step"
    plain = getattr(vc.Session, name)

    def slow(session, *given):
        entered.set()
        assert release.wait(20)
        return plain(session, *given)

    host = PolicyHost(bundle.path, threads=1)
    client = host.connect()
    _asks(host, client, 1).result(10)
    monkeypatch.setattr(vc.Session, name, slow)
    first = _asks(host, client, 2)
    assert entered.wait(10)
    second = _asks(host, client)
    release.set()
    for reply in (first.result(10), second.result(10), _asks(host, client).result(10)):
        assert np.allclose(reply.outputs["actions"], want[2], atol=1e-5)
    assert host.stop(10)


@pytest.mark.parametrize("refused", [{"token": 100}, {"token": 2, "state": float("nan")}], ids=["token", "state"])
@pytest.mark.parametrize("superseded", [False, True])
def test_a_refused_observation_brings_no_instruction(guarded, monkeypatch, refused, superseded):
    """Nor does it get the one refused that comes after it; of a superseded one the instruction alone is judged."""
    (bundle, want), entered, release = guarded, threading.Event(), threading.Event()
    host = PolicyHost(bundle.path, threads=1)
    client, other = host.connect(), host.connect()
    _asks(host, client, 1).result(10)
    plain = vc.Session.step

    def slow(session):
        entered.set()
        assert release.wait(20)
        plain(session)

    if superseded:
        monkeypatch.setattr(vc.Session, "step", slow)
        _asks(host, other, 3)
        assert entered.wait(10)
    bad = _asks(host, client, **refused)
    if not superseded:
        with pytest.raises(RuntimeFailure):
            bad.result(10)
    good = _asks(host, client)
    release.set()
    holds = 2 if superseded and refused["token"] == 2 else 1
    for reply in (good.result(10), _asks(host, client).result(10)):
        assert np.allclose(reply.outputs["actions"], want[holds], atol=1e-5)
    assert host.stop(10)


def test_who_never_gave_an_accepted_instruction_is_told(guarded):
    bundle, want = guarded
    host = PolicyHost(bundle.path, threads=1)
    client = host.connect()
    with pytest.raises(RuntimeFailure):
        _asks(host, client, 100).result(10)
    with pytest.raises(Refusal, match='"tokens" is missing'):
        _asks(host, client).result(10)
    assert np.allclose(_asks(host, client, 4).result(10).outputs["actions"], want[4], atol=1e-5)
    assert host.stop(10)


def test_a_session_that_dies_is_told_to_all_but_those_who_left(averaged, monkeypatch):
    """Of a client that has disconnected, nobody waits for the answer; the others do, and the sessions are closed."""
    dies, held = threading.Event(), threading.Event()

    def step(self, deadline_us=None):
        held.set()
        dies.wait(30)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(vc.Session, "step", step)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # which pytest would report
    host = PolicyHost(averaged.path, threads=1, sessions=4)
    monkeypatch.setattr(host, "exclusive", False)
    writes = {"state": np.zeros((1, 2), np.float32), "tokens": np.zeros((1, 1), np.int64)}
    clients = [host.connect() for _ in range(8)]
    futures = [host.submit(client, writes) for client in clients[:4]]
    assert held.wait(30)
    futures += [host.submit(client, writes) for client in clients[4:]]
    assert futures[4].cancel()
    dies.set()
    for future in futures[:4] + futures[5:]:
        with pytest.raises((Refusal, ZeroDivisionError), match="stopping|a bug"):
            future.result(10)
    assert host.stop(10) and not host.healthy()
