"""SentencePiece models that merge pieces, converted: the ids of SentencePiece itself on text of all kinds, in the
original library of tokenizer.json and in the runtime's; what would differ is refused."""

from __future__ import annotations

import io
import random

import pytest

from tests.samples.small_tokenizers import TEXTS
from vlacompile.frontends.openpi.prompt import cleaned, instruction_tokenizer
from vlacompile.frontends.sentencepiece_model import from_sentencepiece
from vlacompile.frontends.tokenizer_files import encode, tokenizer_json
from vlacompile.tokenize.corpus import INSTRUCTIONS, corpus
from vlacompile.tokenize.read_tokenizer_json import read_tokenizer
from vlacompile.tokenize.table import tokenizer_bytes
from vlart.errors import SourceError
from vlart.runtime.tokenizer import RuntimeTokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="SentencePiece is an oracle only")
KINDS = {
    "as Llama's": {},
    "as PaliGemma's": {"add_dummy_prefix": False, "user_defined_symbols": [
        "\n", "\n\n", "▁▁", "▁▁▁", "<loc0001>", "<seg001>"], "bos_piece": "<bos>", "eos_piece": "<eos>"},
    "without bytes": {"byte_fallback": False},
    "digits apart": {"split_digits": True, "control_symbols": ["<ctl>"]},
    "pieces across words": {"split_by_whitespace": False, "allow_whitespace_only_pieces": True},
}
REFUSED = {
    "unigram": ({"model_type": "unigram", "vocab_size": 500}, "it is of type unigram"),
    "normalised": ({"normalization_rule_name": "nmt_nfkc"}, "it changes characters by a table of its own (nmt_nfkc)"),
    "spaces dropped": ({"remove_extra_whitespaces": True}, "it drops spaces"),
    "spaces behind": ({"treat_whitespace_as_suffix": True}, "its spaces are written in another way"),
}
DAMAGES = {
    "cut off": lambda content: content[:-7], "empty": lambda content: b"", "text": lambda content: b'{"model": {}}',
    "numbers for pieces": lambda content: bytes([8, 1]) + content, "zeros": lambda content: bytes(64),
    "another message": lambda content: bytes([10, 2, 8, 1]),
}


def train(**settings) -> bytes:
    out = io.BytesIO()
    usual = {"model_type": "bpe", "vocab_size": 700, "byte_fallback": True, "normalization_rule_name": "identity",
             "remove_extra_whitespaces": False, "character_coverage": 0.99, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS * 3), model_writer=out, **usual | settings)
    return out.getvalue()


def random_texts(count: int) -> list[str]:
    draw, words = random.Random(1), " ".join(TEXTS).split()
    letters = [chr(c) for c in (*range(32, 127), 0xE9, 0x4E2D, 0x1F600, 0x301, 0x2581, 10, 9, 0x200B, 0xFF21)]
    parts = (letters, [w[:k] + end for w in words for k in (2, 9) for end in ("", " ")],
             ["a", "b", " ", "ab", "ba", "o", "oo", "<s>", "</s>", "<0x41>", "<unk>", "<loc0001>", "\n\n"])
    return ["".join(draw.choices(part, k=draw.randint(0, 40))) for part in parts for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_sentencepiece(kind, tmp_path):
    from tokenizers import Tokenizer

    file = tmp_path / "tokenizer.model"
    file.write_bytes(train(**KINDS[kind]))
    converted = from_sentencepiece(file)
    original, found = sentencepiece.SentencePieceProcessor(model_file=str(file)), Tokenizer.from_str(converted)
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(converted)))
    texts = [*corpus((), ()), *random_texts(1000)]
    assert len(texts) > 3000
    for text in texts:
        want = original.encode(text)
        assert found.encode(text).ids == want, text
        assert "\0" in text or runtime.encode(text) == want, text


def test_another_score_is_another_tokenizer(tmp_path):
    """The comparison can fail: the first merge comes last."""
    from sentencepiece import sentencepiece_model_pb2

    message = sentencepiece_model_pb2.ModelProto.FromString(train())
    first = next(p for p in message.pieces if p.type == p.NORMAL and len(p.piece) > 1)
    first.score = -1e6
    (tmp_path / "tokenizer.model").write_bytes(train())
    (tmp_path / "other.model").write_bytes(message.SerializeToString())
    one, other = (from_sentencepiece(tmp_path / name) for name in ("tokenizer.model", "other.model"))
    assert any(not encode(one, t, 400)[0].equal(encode(other, t, 400)[0]) for t in INSTRUCTIONS)


def test_openpis_prompt_is_sentencepieces(tmp_path):
    """As openpi encodes an instruction: its tokens and those of a line break, by two calls."""
    file = tmp_path / "paligemma_tokenizer.model"
    file.write_bytes(train(**KINDS["as PaliGemma's"]))
    original = sentencepiece.SentencePieceProcessor(model_file=str(file))
    content = instruction_tokenizer(tokenizer_json(file, pieces=True), str(file))
    for text in INSTRUCTIONS:
        want = original.encode(cleaned(text), add_bos=True) + original.encode("\n")
        ids, mask = encode(content, text.strip(), 200)
        assert ids[mask].tolist() == want, text


def test_tokens_beside_the_model_are_found(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train())
    (tmp_path / "added_tokens.json").write_text('{"<PAD>": 700}', encoding="utf-8")
    ids, _ = encode(tokenizer_json(tmp_path / "tokenizer.json", pieces=True), "go<PAD>", 20)
    assert 700 in ids[0].tolist()
    (tmp_path / "added_tokens.json").write_text("[1", encoding="utf-8")
    with pytest.raises(SourceError, match="added_tokens.json cannot be read"):
        tokenizer_json(tmp_path / "tokenizer.json", pieces=True)


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_with_other_ids_is_refused(case, tmp_path):
    settings, why = REFUSED[case]
    (tmp_path / "tokenizer.model").write_bytes(train(**settings))
    with pytest.raises(SourceError) as caught:
        from_sentencepiece(tmp_path / "tokenizer.model")
    assert why in caught.value.why


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_is_refused(case, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(DAMAGES[case](train()))
    with pytest.raises(SourceError, match="the SentencePiece model cannot be read"):
        from_sentencepiece(tmp_path / "tokenizer.model")


def test_where_more_belongs_around_a_text_the_model_alone_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train())
    with pytest.raises(SourceError, match="the tokenizer is a SentencePiece model"):
        tokenizer_json(tmp_path)
