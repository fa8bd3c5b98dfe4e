"""Decode steps and chunk consumption, on ONNX Runtime, against references written from their sources' formulas."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from sample_actions import Relay, idct
from vlart_ctypes import Failure, Policy

from tests.runtime_c.running import run_tool

ORIGINALS = json.loads((Path(__file__).parents[1] / "golden/lerobot_chunk_consumption.json").read_text())
STATE = np.array([[0.5, -1, 2, 100]], np.float32)


def popped(lib, ort, tmp_path, relay: Relay, raw, state=STATE, count: int | None = None) -> np.ndarray:
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        dtype = {"i64": np.int64, "i32": np.int32, "f32": np.float32}[relay.dtype]
        policy.write("raw", np.asarray(raw).astype(dtype).reshape(relay.dims))
        policy.write("state", state)
        policy.step()
        return np.stack([policy.pop() for _ in range(count or relay.H)])


def lower_edge(token, low, high, bins=256):
    """RT-1 (robotics_transformer, tokenizers/action_tokenizer.py): token / (V - 1) * (high - low) + low."""
    return token / (bins - 1) * (high - low) + low


RT1_LOW = np.array([-1, -np.pi / 2, -1, 0])
RT1_HIGH = np.array([1, np.pi / 2, 1, 0])
RT1_CLASSES = 3  # of the last dimension: its token is its value, beyond them 0


def rt1_relay(tokens: int = 4) -> Relay:
    table = np.stack([lower_edge(np.arange(256), lo, hi) for lo, hi in zip(RT1_LOW, RT1_HIGH, strict=True)])
    table[3, :RT1_CLASSES] = np.arange(RT1_CLASSES)
    return Relay("edges", "i32", (1, tokens), (tokens // 4, 4)).lookup(table, rows=[256, 256, 256, RT1_CLASSES],
                                                                      outside="zero")


def rt1(tokens: np.ndarray) -> np.ndarray:
    out = lower_edge(tokens, RT1_LOW, RT1_HIGH)
    out[:, 3] = np.where(tokens[:, 3] >= RT1_CLASSES, 0, tokens[:, 3])
    return out


@pytest.mark.parametrize("token", [0, 1, 127, 128, 254, 255])
def test_lower_edges_and_classes(lib, ort, tmp_path, token):
    tokens = np.array([[token, 255 - token, token // 2, token % 5]])
    got = popped(lib, ort, tmp_path, rt1_relay(), tokens)
    np.testing.assert_allclose(got, rt1(tokens), atol=1e-6)
    if 0 < token < 255:
        assert np.abs(got - rt1(tokens + 1))[:, :3].max() > 1e-3, "control: one bin further is another action"


def openvla(tokens: np.ndarray, q01, q99, mask, vocab: int = 32000) -> np.ndarray:
    """prismatic/vla/action_tokenizer.py and modeling_prismatic.py: 255 centres of 256 edges, counted down from the
    end of the vocabulary; quantiles where the mask says so."""
    edges = np.linspace(-1, 1, 256)
    middle = (edges[:-1] + edges[1:]) / 2
    x = middle[np.clip(vocab - tokens - 1, 0, 254)]
    return np.where(mask, 0.5 * (x + 1) * (q99 - q01) + q01, x)


Q01, Q99 = np.array([-0.7, -0.02, 3.0, 0, -1, -2, 0.0]), np.array([0.9, 0.03, 9.0, 1, 1, -1, 1.0])
MASK = np.array([True] * 6 + [False])


def openvla_relay(vocab: int = 32000, direction: int = -1, shift: int = 0) -> Relay:
    edges = np.linspace(-1, 1, 256)
    table = np.tile((edges[:-1] + edges[1:]) / 2, (7, 1))
    scale = np.where(MASK, (Q99 - Q01) / 2, 1)
    offset = np.where(MASK, (Q99 - Q01) / 2 + Q01, 0)
    relay = Relay("centres", "i64", (1, 7), (1, 7))
    return relay.lookup(table, vocab - 1 + shift, direction=direction, outside="clip").affine(scale, offset)


@pytest.mark.parametrize("token", [31999, 31998, 31872, 31745, 31744, 31743, 0, 32063])
def test_centres_and_quantiles(lib, ort, tmp_path, token):
    tokens = np.full((1, 7), token) - np.arange(7)
    got = popped(lib, ort, tmp_path, openvla_relay(), tokens)
    np.testing.assert_allclose(got, openvla(tokens, Q01, Q99, MASK), atol=2e-6)


def test_a_shifted_or_upward_bin_is_another_action(lib, ort, tmp_path):
    """Negative control: off by one, and counted in the other direction."""
    tokens = np.array([[31999 - i * 30 for i in range(7)]])
    want = openvla(tokens, Q01, Q99, MASK)
    for number, relay in enumerate((openvla_relay(shift=-1), openvla_relay(direction=1))):
        assert np.abs(popped(lib, ort, tmp_path / str(number), relay, tokens) - want).max() > 1e-3


def test_middles_of_quantile_edges(lib, ort, tmp_path):
    """LAPA: edges per dimension of their own number; token i is the middle of edge i and i + 1; a gripper of two."""
    edges = [np.sort(np.random.default_rng(d).normal(size=n)) for d, n in enumerate((257, 41))]
    edges.append(np.array([-0.5, 0.5, 1.5]))
    table = np.zeros((3, 256))
    for d, e in enumerate(edges):
        table[d, : len(e) - 1] = [(a + b) / 2 for a, b in itertools.pairwise(e)]
    tokens = np.array([[0, 39, 0], [255, 40, 1], [17, 3, 1]])
    relay = Relay("middles", "i64", (3, 3), (3, 3)).lookup(table, rows=[256, 40, 2], outside="clip")
    got = popped(lib, ort, tmp_path / "clip", relay, tokens)
    want = [[(edges[d][i] + edges[d][i + 1]) / 2 for d, i in enumerate(np.minimum(row, [255, 39, 1]))]
            for row in tokens]
    np.testing.assert_allclose(got, want, atol=1e-6)
    relay = Relay("middles", "i64", (3, 3), (3, 3)).lookup(table, rows=[256, 40, 2], outside="refuse")
    with pytest.raises(Failure, match='ACTION_NOT_DECODED.*token 4 of value "out".*no row for it: 40'):
        popped(lib, ort, tmp_path / "refuse", relay, tokens)


@pytest.mark.parametrize("token", [2**63 - 1, -2**63, -1, 2**32])
def test_no_token_leads_outside_of_a_table(lib, ort, tmp_path, token):
    for direction in (1, -1):
        first = 2**32 - 1 if direction < 0 else 0
        relay = Relay("wide", "i64", (1, 1), (1, 1)).lookup(np.array([[1.0, 2.0, 3.0]]), first, direction=direction,
                                                           outside="clip")
        above = (token > 0) if direction > 0 else token < 2**32 - 1
        got = popped(lib, ort, tmp_path / str(direction), relay, [[token]])
        assert got[0, 0] == (3.0 if above else 1.0)


# ---- pieces

T, D, SCALE, MIN_TOKEN = 6, 3, 10, -354


def fast_encode(actions: np.ndarray) -> str:
    """DCT-II (orthonormal) over time by its definition, quantised; row-major [T,D] as one character each."""
    coefficients = np.around(idct(T).T @ actions * SCALE).astype(int)
    return "".join(chr(max(0, v - MIN_TOKEN)) for v in coefficients.ravel())


def fast_decode(text: str) -> np.ndarray:
    q = np.array([ord(c) + MIN_TOKEN for c in text]).reshape(T, D)
    return idct(T) @ (q / SCALE)


def chunks(seed: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 1, T)[:, None]
    a, b, c = rng.normal(size=(3, count, 1, D))
    return list(np.clip(a + b * steps + c * steps**2, -4, 4))


@pytest.fixture(scope="module")
def bpe():
    """A byte-level BPE trained on such strings, as FAST's own is; zero is U+0162, two bytes."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = [chr(i) for i in range(400)]
    tokenizer.train_from_iterator([fast_encode(c) for c in chunks(0, 300)],
                                  trainers.BpeTrainer(vocab_size=1000, show_progress=False, initial_alphabet=alphabet,
                                                      min_frequency=2, max_token_length=10000))
    return tokenizer


def fast_relay(bpe, length="exact", tokens: int = 40, **fields) -> Relay:
    from vlacompile.policy.action_decoding import byte_pieces

    return Relay("fast", "i64", (1, tokens), (T, D)).pieces(
        byte_pieces(bpe.to_str()), symbols="utf8", offset=MIN_TOKEN, length=length, **{"stop": 5000, **fields}) \
        .decode("basis", (idct(T) / SCALE).astype(np.float32))


def padded(ids: list[int], to: int = 40, stop: int = 5000) -> np.ndarray:
    assert len(ids) < to
    return np.array(ids + [stop] * (to - len(ids)))


def test_every_token_has_the_bytes_of_the_library(bpe):
    """Id by id; a token that is no whole character is compared within a pair that is."""
    from vlacompile.policy.action_decoding import byte_pieces

    pieces = byte_pieces(bpe.to_str())
    assert len(pieces) == bpe.get_vocab_size() and max(map(len, pieces)) > 4
    whole = parts = 0
    for i, piece in enumerate(pieces):
        text = bpe.decode([i], skip_special_tokens=False)
        if "\ufffd" in text:
            parts += 1
            with pytest.raises(UnicodeDecodeError):
                bytes(piece).decode()
        else:
            whole += 1
            assert bytes(piece).decode() == text, i
    assert whole > 500 and parts > 50
    beyond = [i for i, p in enumerate(pieces) if len(p) == 1 and p[0] >= 0x80]
    assert len(beyond) > 50, "single bytes of characters that are not ASCII"


def test_fast_round_trip(lib, ort, tmp_path, bpe):
    """Encode with the library, decode with libvlart: id sequences of many lengths, within the quantisation."""
    several = []
    with Policy(lib, fast_relay(bpe).bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        for chunk in chunks(1, 60):
            text = fast_encode(chunk)
            ids = bpe.encode(text).ids
            several.append(len(ids))
            assert bpe.decode(ids) == text
            policy.write("raw", padded(ids).reshape(1, 40))
            policy.step()
            got = np.stack([policy.pop() for _ in range(T)])
            np.testing.assert_allclose(got, fast_decode(text), atol=2e-6)
            assert np.abs(got - chunk).max() < 0.05 * np.sqrt(2 * T), "half a step of quantisation per coefficient"
            assert np.abs(got.T.reshape(T, D) - fast_decode(text)).max() > 1e-3, "control: [D,T] is another order"
    assert len(set(several)) > 5


def test_fast_is_lerobots(lib, ort, tmp_path):
    """Committed outputs of decode_actions_with_fast: right, too short and too long sequences, relaxed."""
    from vlacompile.policy.action_decoding import byte_pieces

    case = ORIGINALS["fast"]
    outputs = np.array(case["actions"])
    _, steps, dim = outputs.shape
    relay = Relay("fast", "i64", (1, 40), (steps, dim))
    relay.pieces(byte_pieces(case["tokenizer"]), symbols="utf8", offset=case["min_token"], length="fit", stop=5000)
    relay.decode("basis", (idct(steps) / case["scale"]).astype(np.float32))
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        for ids, want in zip(case["sequences"], outputs, strict=True):
            policy.run({"raw": padded(ids).reshape(1, 40)})
            np.testing.assert_allclose(np.stack([policy.pop() for _ in range(steps)]), want, atol=1e-6)


def test_a_character_may_span_tokens(lib, ort, tmp_path, bpe):
    """The two bytes of a zero as two tokens."""
    from vlacompile.policy.action_decoding import byte_pieces

    pieces = byte_pieces(bpe.to_str())
    single = {p[0]: i for i, p in enumerate(pieces) if len(p) == 1}
    text = fast_encode(chunks(2, 1)[0])
    ids = [single[b] for b in text.encode()]
    assert len(ids) > T * D
    got = popped(lib, ort, tmp_path / "a", fast_relay(bpe), padded(ids))
    np.testing.assert_allclose(got, fast_decode(text), atol=2e-6)
    for number, (bad, why) in enumerate(((ids[:-1], "ends within a character"), ([ids[1], *ids], "no UTF-8 here"))):
        broken = bytes(text.encode())
        assert broken[0] >= 0xC0 and broken[-1] >= 0x80
        with pytest.raises(Failure, match=f"ACTION_NOT_DECODED.*{why}"):
            popped(lib, ort, tmp_path / str(number), fast_relay(bpe), padded(bad))


@pytest.mark.parametrize("length", ["exact", "fit"])
@pytest.mark.parametrize("change", [-4, -1, 1, 3])
def test_wrong_lengths(lib, ort, tmp_path, bpe, length, change):
    """exact: no action, and it is said; fit: zeros are added or the rest is dropped (LeRobot's relaxed decoding)."""
    text = fast_encode(chunks(3, 1)[0])
    zero = chr(-MIN_TOKEN)
    longer = text[:change] if change < 0 else text + "\u0163" * change
    relay = fast_relay(bpe, length)
    if length == "exact":
        why = f"symbols missing: {-change}" if change < 0 else "more symbols than the chunk has"
        with pytest.raises(Failure, match=f"ACTION_NOT_DECODED.*{why}"):
            popped(lib, ort, tmp_path, relay, padded(bpe.encode(longer).ids))
    else:
        want = fast_decode((longer + zero * 9)[: T * D])
        np.testing.assert_allclose(popped(lib, ort, tmp_path, relay, padded(bpe.encode(longer).ids)), want, atol=2e-6)


def test_tokens_counted_down_within_another_vocabulary(lib, ort, tmp_path, bpe):
    """pi0-FAST: id = vocabulary - 1 - 128 - token; what surrounds the sequence is skipped, a stop ends it."""
    first = 257152 - 1 - 128
    text = fast_encode(chunks(4, 1)[0])
    ids = [4022, 235292, *(first - i for i in bpe.encode(text).ids), 235371, 1, first]
    relay = fast_relay(bpe, first=first, direction=-1, outside="skip", stop=235371)
    got = popped(lib, ort, tmp_path / "skip", relay, padded(ids, stop=0))
    np.testing.assert_allclose(got, fast_decode(text), atol=2e-6)
    relay = fast_relay(bpe, first=first, direction=-1, outside="refuse", stop=235371)
    with pytest.raises(Failure, match="ACTION_NOT_DECODED.*no row for it: 4022"):
        popped(lib, ort, tmp_path / "refuse", relay, padded(ids, stop=0))


def test_integer_symbols(lib, ort, tmp_path):
    relay = Relay("runs", "i32", (1, 3), (2, 3)).pieces([(5,), (1000, 2), (7, 0, 9)], offset=-3)
    np.testing.assert_array_equal(popped(lib, ort, tmp_path, relay, [1, 2, 0]), [[997, -1, 4], [-3, 6, 2]])


# ---- numbers to actions

def test_scale_offset_and_deltas(lib, ort, tmp_path):
    """Mean and standard deviation where masked, then joints relative to the state, the gripper absolute."""
    chunk = np.random.default_rng(5).normal(size=(1, 4, 3)).astype(np.float32)
    mean, std = np.array([1, -2, 0]), np.array([0.5, 3, 1])
    relay = Relay("deltas", "f32", (1, 4, 3), (4, 3)).affine(std, mean).delta([2, 0, None])
    want = chunk[0] * std + mean + [STATE[0, 2], STATE[0, 0], 0]
    got = popped(lib, ort, tmp_path, relay, chunk)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(got - (chunk[0] * std + mean)).max() > 0.4, "control: deltas are not absolute"


def test_what_no_float_holds_is_refused(lib, ort, tmp_path):
    relay = Relay("large", "f32", (1, 1, 1), (1, 1)).affine([3e38], [0])
    with pytest.raises(Failure, match="ACTION_NOT_FINITE"):
        popped(lib, ort, tmp_path, relay, [[[9.0]]])


# ---- consumption

def all_chunks(history: list[np.ndarray], t: int, m: float, newest_first: bool = False) -> np.ndarray:
    """Keep every chunk (ACT, imitate_episodes.py): mean of what tick t was predicted to be, weighted exp(-m * i)."""
    predictions = [c[t - s] for s, c in enumerate(history) if 0 <= t - s < len(c)]
    predictions = predictions[::-1] if newest_first else predictions
    weights = np.array([np.exp(-m * i) for i in range(len(predictions))])
    return (weights[:, None] * predictions).sum(0) / weights.sum()


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3, -0.2, 50.0])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_ensemble(lib, ort, tmp_path, decay, steps):
    rng = np.random.default_rng(6)
    history: list[np.ndarray] = []
    errors = {"right": 0.0, "sign": 0.0, "newest": 0.0}
    relay = Relay("ensemble", "f32", (1, steps, 2), (steps, 2), 1).consume("ensemble", decay=decay)
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        for t in range(40):
            if t % 7 == 3:  # a chunk that is never executed: the next one for the same tick replaces it
                policy.run({"raw": rng.normal(size=(1, steps, 2)).astype(np.float32)})
            history.append(rng.normal(size=(steps, 2)).astype(np.float32))
            policy.run({"raw": history[-1][None]})
            got = policy.pop()
            for name, args in (("right", (decay,)), ("sign", (-decay,)), ("newest", (decay, True))):
                with np.errstate(over="ignore", invalid="ignore"):
                    errors[name] = max(errors[name], np.abs(got - all_chunks(history, t, *args)).max())
    assert errors["right"] < 1e-5
    if decay and steps > 1:
        assert not errors["sign"] < 1e-3 and errors["newest"] > 1e-3, "controls: the decay's sign and its end"


def test_an_unchanged_observation_predicts_the_same_again(lib, ort, tmp_path):
    """The policy is a function: stepping without a change is one more equal chunk, not none."""
    chunk = np.arange(6, dtype=np.float32).reshape(3, 2)
    relay = Relay("ensemble", "f32", (1, 3, 2), (3, 2), 1).consume("ensemble", decay=0.5)
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        for t in range(6):
            policy.run({"raw": chunk[None]})
            np.testing.assert_allclose(policy.pop(), all_chunks([chunk] * (t + 1), t, 0.5), atol=1e-6)
        assert policy.runs() == {"relay": 1}
        policy.tick_invalidate()
        policy.step()
        np.testing.assert_allclose(policy.pop(), chunk[0], atol=1e-6)


def test_ensemble_is_lerobots(lib, ort, tmp_path):
    """Committed outputs of ACTTemporalEnsembler; the file says which version made them."""
    case = ORIGINALS["ensemble"]
    inputs, outputs = np.array(case["chunks"], np.float32), np.array(case["actions"])
    shape = inputs.shape[1:]
    relay = Relay("ensemble", "f32", (1, *shape), shape, 1).consume("ensemble", decay=case["decay"])
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        for chunk, want in zip(inputs, outputs, strict=True):
            policy.run({"raw": chunk[None]})
            np.testing.assert_allclose(policy.pop(), want, atol=1e-5)


def test_realtime_hand_over(lib, ort, tmp_path):
    """LeRobot's ActionQueue: the new chunk replaces the rest, without its first `real_delay` actions."""
    case = ORIGINALS["realtime_queue"]
    inputs = np.array(case["chunks"], np.float32)
    steps, dim = inputs.shape[1:]
    relay = Relay("realtime", "f32", (1, steps, dim), (steps, dim), 3).consume("realtime", delay=2, horizon=4)
    got = []
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        for chunk, delay, pops in zip(inputs, case["delays"], case["pops"], strict=True):
            policy.write("raw", chunk[None])
            got += [policy.pop() for _ in range(delay)]  # executed while it is computed
            policy.step()
            assert policy.queue().remaining == steps - delay
            got += [policy.pop() for _ in range(pops)]
            assert policy.queue().due == (pops >= 3 or pops == steps - delay)
    np.testing.assert_array_equal(np.array(got), np.array(case["actions"], np.float32))
    wrong = np.concatenate([inputs[0][:pops] for pops in case["pops"][:1]] + [inputs[1][: case["pops"][1]]])
    assert not np.array_equal(wrong, np.array(case["actions"], np.float32)[: len(wrong)]), "control: nothing dropped"


@pytest.mark.parametrize("case", range(len(ORIGINALS["prefix_weights"])))
def test_prefix_weights_are_lerobots(lib, ort, tmp_path, case):
    """RTCProcessor.get_prefix_weights for a whole chunk left: d ones, the schedule, zeros from the horizon on."""
    row = ORIGINALS["prefix_weights"][case]
    steps, delay, horizon = row["steps"], row["delay"], row["horizon"]
    relay = Relay("weights", "f32", (1, steps, 1), (steps, 1), delay or 1, filled=True)
    relay.consume("realtime", delay=delay, horizon=horizon, schedule=row["schedule"], previous="previous",
                  weights="weights", chunk="out")
    chunk = np.arange(1, steps + 1, dtype=np.float32).reshape(1, steps, 1)
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        policy.run({"raw": chunk})
        assert not policy.read("heeded").any() and not policy.read("seen").any(), "nothing is known of the first chunk"
        policy.run({"raw": chunk + 1})
        np.testing.assert_allclose(policy.read("heeded"), row["weights"], atol=1e-6)
        np.testing.assert_array_equal(policy.read("seen"), chunk)
        for _ in range(2):
            policy.pop()
        policy.run({"raw": chunk + 2})
        np.testing.assert_array_equal(policy.read("seen")[0, :, 0], [*(chunk[0, 2:, 0] + 1), 0, 0])


def test_a_replan_that_is_repeated_runs_nothing_twice(lib, ort, tmp_path):
    relay = Relay("realtime", "f32", (1, 4, 1), (4, 1), 2, filled=True)
    relay.consume("realtime", delay=1, horizon=2, previous="previous", weights="weights", chunk="out")
    chunk = np.ones((1, 4, 1), np.float32)
    with Policy(lib, relay.bundle.write(tmp_path)).start(ort) as policy:
        policy.write("state", STATE)
        policy.run({"raw": chunk})
        policy.step()
        policy.run({"raw": chunk})
        assert policy.runs() == {"relay": 1}


def test_run_decodes_and_tells_what_it_refuses(lib, ort, tmp_path):
    """A self-test compares the tokens, also those that are no chunk; a run stops at them."""
    relay = Relay("runs", "i32", (1, 3), (1, 3)).pieces([(5,), (6,), (7,)], length="exact")
    for label, tokens in (("good", [0, 1, 2]), ("bad", [0, 1, 9])):
        raw = np.array([tokens], np.int32)
        relay.bundle.frame(label, {"raw": raw, "state": STATE}, {"out": raw}, 0, 0, 1)
    root = relay.bundle.write(tmp_path)
    done = run_tool("vlart-run", root, "--ort", ort, "--self-test", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [f["actions"] for f in report["frames"]] == [[[5, 6, 7]], []]
    report = json.loads(run_tool("vlart-run", root, "--ort", ort, "--json").stdout)
    assert report["status"] == "ACTION_NOT_DECODED" and 'frame 1 "bad"' in report["where"]


def test_dump_prints_it_as_the_compiler_does(lib, tmp_path):
    from sample_actions import samples

    from vlart.bundle.plan.binary import read_plan
    from vlart.bundle.plan.text import parse_plan, plan_text

    for name, relay in samples().items():
        text = run_tool("vlart-dump", root := relay.bundle.write(tmp_path / name)).stdout
        assert text == plan_text(read_plan(root / "plan.bin")) and parse_plan(text) == read_plan(root / "plan.bin")
        lines = {"guarded": "\nguard %", "limited_clip": "rate_limit clip step=2,0",
                 "limited_refuse": "\ntoken_range %0 rows=4"}
        assert any(t in text for t in (f"  decode {name}", f"  consume {name}", lines.get(name, "none")))
