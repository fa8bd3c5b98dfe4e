"""A bundle of several text lengths: the runtime takes the shortest that holds the text, and refuses what none holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.policy.test_text_length import Reader
from tests.samples.small_tokenizers import word_piece
from vlacompile.cli.main import main
from vlacompile.policy.join_backbones import join
from vlacompile.policy.policy import Policy, Source
from vlacompile.policy.text import Fit, Text, TextBuckets
from vlart.errors import ConfigError, ParityError, RuntimeFailure, SourceError
from vlart.serve.policy_host import PolicyHost
from vlart.verify.replay import verify

TOKENIZER = word_piece()  # trained once: its ids differ between trainings
LENGTH, LENGTHS = 12, (6, 8, 12)
TEXTS = {6: "cup", 8: "pick cup", 12: "pick up the cup"}  # of 5, 8 and 11 tokens
BOARD_RECIPE = 'name = "lengths"\ndescription = "of texts"\n[text]\nlengths = [6, 8, 12]\n[stages]\nmin_flops = 0\n'


class Sighted(torch.nn.Module):
    """A text and what is seen: vision does not read the text."""

    def __init__(self, **settings):
        super().__init__()
        self.reader, self.vision = Reader(**settings), torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(),
                                                                           torch.nn.Linear(64, 5))
        self.reader.words = torch.nn.Embedding(300, 16)

    def forward(self, tokens, mask, image):
        return self.reader(tokens, mask, self.vision(image))


def policy(**settings) -> Policy:
    torch.manual_seed(0)
    inputs = {"tokens": torch.randint(1, 300, (1, LENGTH)), "mask": torch.arange(LENGTH)[None] < 5,
              "image": torch.randn(1, 64)}
    return Policy("sighted", Sighted(**settings).eval(),
                  {"tokens": Source("task"), "mask": Source("task"), "image": Source("observation")}, inputs,
                  texts={"tokens": Text(TOKENIZER.to_str(), "mask", Fit(0, "right", "right"))})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lengths")
    (folder / "r.toml").write_text(BOARD_RECIPE, encoding="utf-8")
    return vc.build(policy(), "host", str(folder / "r.toml"), folder / "x.vlab")


def encoded(text: str) -> dict[str, np.ndarray]:
    ids = TOKENIZER.encode(text).ids
    return {"tokens": np.array([ids + [0] * (LENGTH - len(ids))]),
            "mask": np.array([[True] * len(ids) + [False] * (LENGTH - len(ids))])}


def test_stages_that_do_not_read_the_text_are_there_once_and_weights_too(bundle):
    plan = bundle.plan
    text = {plan.value_index("tokens"), plan.value_index("mask")}
    assert {len(plan.served_by(s)) for s in plan.stages} == {1, len(LENGTHS)}
    assert all((len(plan.served_by(s)) == 1) == bool(text.intersection(s.depends)) for s in plan.stages)
    assert [b.length for b in plan.buckets] == list(LENGTHS)
    words = [i.weight for s in plan.stages for i in s.initializers if plan.weights[i.weight].type.dims == (300, 16)]
    assert len(words) == len(LENGTHS) and len(set(words)) == 1
    assert sum(w.type.dims == (300, 16) for w in plan.weights) == 1


def test_every_length_is_replayed_and_compared_with_the_longest(bundle):
    report = verify(bundle.path)
    assert report.passed
    frames = {(v.value, v.level): v.frames for v in report.values}
    assert {n for n, level in frames if level == "chunk"} == {f"tokens_{n}.action" for n in LENGTHS}
    assert 0 < frames["tokens_6.action", "length"] < frames["tokens_8.action", "length"] \
        < frames["tokens_12.action", "chunk"]


def test_the_text_decides_and_the_action_is_that_of_the_longest_padding(bundle):
    given = policy()
    with vc.Session(bundle.path) as session:
        image = np.zeros((1, 64), np.float32)
        for turn, (length, text) in enumerate((*TEXTS.items(), *reversed(TEXTS.items()))):
            image = image + np.float32(0.1)
            session.write("image", image)
            session.write_text("tokens", text)
            before = session.stats().runs()
            session.step()
            ran = {n for n, runs in session.stats().runs().items() if runs > before[n]}
            assert session.action_output == f"tokens_{length}.action", turn
            assert not any(f"tokens_{n}" in stage for n in set(LENGTHS) - {length} for stage in ran)
            want = given.infer(**{n: torch.from_numpy(a) for n, a in (encoded(text) | {"image": image}).items()})
            np.testing.assert_allclose(session.read(session.action_output), want["action"].detach(), atol=1e-5)
            np.testing.assert_allclose(session.pop(), want["action"][0, 0].detach(), atol=1e-5)


def test_a_text_that_no_length_holds_is_refused_with_both_numbers(bundle):
    long = "pick up the red cup"
    with vc.Session(bundle.path) as session:
        session.write("image", np.zeros((1, 64), np.float32))
        session.write_text("tokens", TEXTS[6])
        session.step()
        with pytest.raises(RuntimeFailure) as refusal:
            session.write_text("tokens", long)
        count = len(TOKENIZER.encode(long).ids)
        assert refusal.value.status == "TEXT_REFUSED" and f"they are {count}, the policy takes 12" in refusal.value.why
        session.step()
        assert session.action_output == "tokens_6.action"  # as it was


def test_what_is_served_is_what_ran(bundle):
    host, given = PolicyHost(bundle.path), policy()
    try:
        client = host.connect()
        for call, text in enumerate((*TEXTS.values(), *TEXTS.values())):
            sources = encoded(text) | {"image": np.full((1, 64), call / 4, np.float32)}
            served = host.submit(client, sources, call).result(60).outputs["actions"]
            want = given.infer(**{n: torch.from_numpy(a) for n, a in sources.items()})["action"][0].detach().numpy()
            np.testing.assert_allclose(served, want, atol=1e-5)
        assert host.described()["text_tokens"] == 12 and "backbone" not in host.described()
    finally:
        assert host.stop(60)


def test_none_below_a_selected_length_is_run(bundle):
    with vc.Session(bundle.path) as session:
        session.write("image", np.zeros((1, 64), np.float32))
        session.write_text("tokens", TEXTS[6])
        session.step()
        short = session.pop()
        session.select("tokens_12")
        session.step()
        assert session.action_output == "tokens_12.action"
        np.testing.assert_allclose(session.pop(), short, atol=1e-5)


def test_a_length_that_answers_otherwise_is_not_published(tmp_path):
    """The comparison in PyTorch is left out: the replay finds it."""
    given = policy(pads=True)

    def reading(n):
        return replace(given, observe=lambda tokens, mask, image: given.observe(tokens[:, :n], mask[:, :n], image))

    joined = join({f"tokens_{n}": reading(n) for n in (6, 12)}, "wrong")
    with pytest.raises(ParityError, match="differs from PyTorch with the longest padding"):
        vc.build(replace(joined, buckets=TextBuckets("mask", "right", (6, 12))), "host", None, tmp_path / "w.vlab")
    assert not (tmp_path / "w.vlab").exists()
    with pytest.raises(SourceError, match="reads the padding"):
        (tmp_path / "r.toml").write_text(BOARD_RECIPE, encoding="utf-8")
        vc.build(given, "host", str(tmp_path / "r.toml"), tmp_path / "w.vlab")


def test_lanes_and_lengths_do_not_go_together(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(BOARD_RECIPE + '[[lane]]\nname = "slow"\nsources = ["tokens", "mask"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="lanes"):
        vc.build(policy(), "host", str(recipe), tmp_path / "x.vlab")


def test_inspect_shows_the_lengths(bundle, capsys):
    assert main(["inspect", str(bundle.path)]) == 0
    assert "Lengths of the text" in capsys.readouterr().out
