"""Second oracles: SentencePiece itself for a model that it trained, the C++ tokenizers that executorch ships, and the C
API of onnxruntime-extensions."""

from __future__ import annotations

import ctypes
import io
import json
from pathlib import Path

import pytest

from tests.samples.small_tokenizers import KINDS, TEXTS, byte_bpe
from vlacompile.tokenize.corpus import INSTRUCTIONS, LANGUAGES, ODD
from vlacompile.tokenize.read_tokenizer_json import read_tokenizer
from vlacompile.tokenize.table import tokenizer_bytes
from vlart.runtime.tokenizer import RuntimeTokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="SentencePiece is an oracle only")


@pytest.fixture(scope="module")
def model():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=out, model_type="bpe", vocab_size=700, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def converted(model) -> str:
    """As the usual conversion does it: a merge for every way to put a piece together of two others, by its rank, and of
    equal rank by those of its parts."""
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    ids = {p: i for i, p in enumerate(pieces)}
    merges = []
    for piece in pieces:
        if not (model.is_control(ids[piece]) or model.is_byte(ids[piece]) or model.is_unknown(ids[piece])):
            parts = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in ids and piece[k:] in ids]
            merges += sorted(parts, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None,
        "decoder": None,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids, "merges": merges}})


def test_ids_are_those_of_sentencepiece(model):
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(converted(model))))
    texts = [t for t in (*INSTRUCTIONS, *LANGUAGES, *ODD) if "\0" not in t and "<" not in t and "▁" not in t]
    assert len(texts) > 50
    for text in texts:
        assert runtime.encode(text) == model.encode(text), text


def test_another_tokenizer_is_another(model):
    """The comparison can fail: one merge less."""
    document = json.loads(converted(model))
    document["model"]["merges"] = document["model"]["merges"][1:]
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(json.dumps(document))))
    assert any(runtime.encode(t) != model.encode(t) for t in INSTRUCTIONS)


def test_ids_are_those_of_executorchs_tokenizers(tmp_path):
    native = pytest.importorskip("pytorch_tokenizers", reason="it comes with executorch")
    document = json.loads(byte_bpe().to_str())
    path = tmp_path / "tokenizer.json"
    document["added_tokens"] = [t for t in document["added_tokens"] if t["special"]]
    path.write_text(json.dumps(document), encoding="utf-8")
    other = native.CppHFTokenizer()
    other.load(str(path))
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(path.read_text(encoding="utf-8"))))
    for text in INSTRUCTIONS:
        assert runtime.encode(text) == list(other.encode(text, 0, 0)), text


# ---- onnxruntime-extensions, by the C API that its library exports ---------------------------------------------------

class Extensions:
    """directory: with tokenizer.json and tokenizer_config.json."""

    def __init__(self, directory):
        import onnxruntime_extensions as package

        self.library = ctypes.CDLL(str(next(Path(package.__file__).parent.glob("_extensions_pydll*.so"))))
        self.library.OrtxGetLastErrorMessage.restype = ctypes.c_char_p
        self.handle = ctypes.c_void_p()
        self._check(self.library.OrtxCreateTokenizer(ctypes.byref(self.handle), str(directory).encode()))

    def _check(self, status: int) -> None:
        assert status == 0, self.library.OrtxGetLastErrorMessage()

    def encode(self, text: str) -> list[int]:
        texts, rows = (ctypes.c_char_p * 1)(text.encode()), ctypes.c_void_p()
        self._check(self.library.OrtxTokenize(self.handle, texts, ctypes.c_size_t(1), ctypes.byref(rows)))
        ids, count = ctypes.POINTER(ctypes.c_uint32)(), ctypes.c_size_t()
        self._check(self.library.OrtxTokenId2DArrayGetItem(rows, ctypes.c_size_t(0), ctypes.byref(ids),
                                                           ctypes.byref(count)))
        return ids[: count.value]


def smollm2() -> str:
    encoders = pytest.importorskip("examples.libero_goal.encoders", reason="make demo installs what it needs")
    if not encoders.SMOLLM2.find().is_file():
        pytest.skip("SmolLM2 is not installed: make demo")
    return encoders.SmolLM2.tokenizer().to_str()


@pytest.mark.parametrize("name, text", [("GPT2Tokenizer", lambda: KINDS["gpt2"]().to_str()), ("GPT2Tokenizer", smollm2),
                                        ("Qwen2Tokenizer", lambda: KINDS["qwen2"]().to_str())])
def test_ids_are_those_of_onnxruntime_extensions(name, text, tmp_path):
    """Of byte-level BPE; tokens that stand in the text it treats otherwise."""
    pytest.importorskip("onnxruntime_extensions", reason="pip install onnxruntime-extensions==0.15.2")
    document = text()
    (tmp_path / "tokenizer.json").write_text(document, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}), encoding="utf-8")
    other = Extensions(tmp_path)
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(document)))
    texts = [t for t in (*INSTRUCTIONS, *LANGUAGES) if "grasp" not in t]
    differ = [t for t in texts if runtime.encode(t) != other.encode(t)]
    assert not differ, (differ[0], runtime.encode(differ[0]), other.encode(differ[0]))
