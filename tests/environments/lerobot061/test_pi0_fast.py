"""pi0-FAST of LeRobot 0.6.1, whose tokens become actions in the runtime, against its own preprocessor, policy and
postprocessor; and every kind of text that a policy may write against LeRobot's own decoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.environments.lerobot.parity import INSTRUCTION, compiled_actions, observation
from tests.environments.lerobot061 import pi0_fast
from tests.environments.lerobot061.test_parity import JOINTS, SHARE, loaded
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.pi0_fast import action_tokens, decoder_of
from vlacompile.frontends.lerobot.read import open_checkpoint
from vlacompile.phases.load_policy import load_policy
from vlacompile.policy.drawn_from import drawn_from
from vlart.errors import RuntimeFailure, SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
CASES = {
    "pi0_fast": {},
    "pi0_fast-drawn": {"temperature": 0.7, "use_relative_actions": True, "action_feature_names": JOINTS,
                       "use_kv_cache": False},
}
SEEDS = range(4)


@pytest.mark.parametrize("case", CASES)
def test_actions_are_those_of_lerobot(case, tmp_path, record_property):
    folder = tmp_path / "pretrained_model"
    with pi0_fast.small():
        pi0_fast.write(folder, **CASES[case])
        policy = loaded(folder)
        bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab"))
        noises = [drawn(bundle, seed) for seed in SEEDS]
        want = np.stack([original(folder, policy, seed, noises[seed]) for seed in SEEDS])
        got = np.stack([compiled_actions(bundle, folder, policy, observation(policy, seed), noises[seed])
                        for seed in SEEDS])
    share = share_of_spread(got, want)
    assert share < SHARE
    assert len({w.tobytes() for w in want}) == len(SEEDS), "another observation gives the same actions"
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy=case, oracle="LeRobot 0.6.1",
             seconds=seconds)


def drawn(bundle: vc.Bundle, seed: int) -> dict[str, torch.Tensor]:
    shapes = {v.name: v.type.dims for v in (bundle.plan.values[s.value] for s in bundle.plan.sources)}
    draw = torch.Generator().manual_seed(seed)
    return {n: torch.rand(shape, generator=draw) for n, shape in shapes.items() if n.startswith("noise")}


def original(folder, policy, seed: int, noise: dict[str, torch.Tensor]) -> np.ndarray:
    from lerobot.policies.factory import make_pre_post_processors

    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    raw = {n: torch.from_numpy(a) for n, a in observation(policy, seed).items()}
    raw = {n: x.movedim(-1, 0) / 255 if x.dim() == 3 else x for n, x in raw.items()}
    with torch.no_grad(), drawn_from(uniform=noise.get("noise.choices")):
        return after(policy.predict_action_chunk(before(raw | {"task": INSTRUCTION})))[0].numpy()


LENGTH = 14


@pytest.fixture(scope="module", params=[False, True], ids=["unchecked", "checked"])
def decoding(request, tmp_path_factory):
    """(LeRobot's policy, a bundle that decodes the ids that it is given)"""
    folder = tmp_path_factory.mktemp("decoding") / "pretrained_model"
    with pi0_fast.small():
        pi0_fast.write(folder, validate_action_token_prefix=request.param)
        policy, checkpoint = loaded(folder), open_checkpoint(folder)[0]
        tokens, decoder = action_tokens(policy), decoder_of(policy, replace(checkpoint, normalise={}))
    given = vc.Policy("given", lambda ids: {"written": tokens.rows(ids)}, {"ids": vc.Source("observation")},
                      {"ids": torch.full((1, LENGTH), tokens.last)}, outputs=("written",), decoder=decoder)
    return policy, tokens, vc.build(given, out=folder.parent / "a.vlab")


def written(tokens, prefix: list[int], draw: torch.Generator, kinds: str) -> list[int]:
    """Ids of a text: "a" of actions, "t" of texts, "e" the end, "n" below all of actions, "p" the prefix, "o" of no
    vocabulary."""
    def one(low: int, high: int) -> list[int]:
        return [int(torch.randint(low, high, (), generator=draw))]

    last, count = tokens.last, len(tokens.fast.pieces)
    found = {"a": lambda: one(last - count + 1, last + 1), "t": lambda: one(0, 40), "e": lambda: [tokens.end],
             "n": lambda: one(last + 1, tokens.known), "p": lambda: prefix, "o": lambda: one(tokens.known, 512)}
    return [i for kind in kinds for i in found[kind]()][:LENGTH]


TEXTS = ("aaaaaaaaaaaaaa", "paaaaaaaaaaa", "paaaaae", "paaaaeaaaon", "e", "pe", "ppaaae", "aapaae", "pataaate",
         "paanaae", "paaoaae", "paaeo", "tttttttttttttt", "aaaaaaane", "peeee", "tpaaaae")


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_is_decoded_or_refused_as_by_lerobot(decoding, text):
    policy, tokens, bundle = decoding
    prefix = policy._paligemma_tokenizer.encode("Action: ", add_special_tokens=False)
    for seed in range(3):
        ids = written(tokens, prefix, torch.Generator().manual_seed(seed), text)
        ids += [0] * (LENGTH - len(ids))
        try:
            want = policy.detokenize_actions(torch.tensor([ids]), action_horizon=4, action_dim=6)[0].numpy()
        except (AssertionError, TypeError):  # the text begins otherwise, or an id is in no vocabulary
            want = None
        with vc.Session(bundle.path) as session:
            session.write("ids", np.array([ids]))
            if want is None:
                with pytest.raises(RuntimeFailure, match="UTF-8"):
                    session.step()
                continue
            session.step()
            got = np.stack([session.pop() for _ in range(4)])
        assert np.abs(got - want).max() <= 1e-6 and ("a" not in text.split("e")[0] or "n" in text or want.any())


def test_without_weights_the_sources_are_the_same(tmp_path):
    with pi0_fast.small():
        pi0_fast.write(tmp_path / "c")
        one, other = (load_policy(str(tmp_path / "c"), weights=weights) for weights in (True, False))
    assert one.sources == other.sources and one.execute == other.execute == 4 and one.decoder == other.decoder


def test_tokenizers_that_do_not_fit_are_refused(tmp_path):
    with pi0_fast.small():
        policy = pi0_fast.write(tmp_path / "c", fast_skip_tokens=250, ids=())
        with pytest.raises(SourceError, match="tokens of actions are also tokens of texts"):
            action_tokens(policy)
