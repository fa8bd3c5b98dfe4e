"""Tokenizers taken over into tables: ids as the original's, refusals by name, and what the check must catch."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Original
from tokenizers import models

from tests.samples.small_tokenizers import KINDS, byte_bpe, gemma_like, word_piece
from vlacompile.policy.text import Fit
from vlacompile.tokenize.corpus import characters, corpus
from vlacompile.tokenize.read_tokenizer_json import read_tokenizer
from vlacompile.tokenize.table import tokenizer_bytes
from vlacompile.tokenize.tokenizer import Bpe, Tokenizer
from vlacompile.tokenize.verify_table import check_tokenizer, compare_ids
from vlart.errors import ParityError, RuntimeFailure, SourceError
from vlart.runtime.tokenizer import RuntimeTokenizer


@cache
def taken(kind: str) -> tuple[Original, Tokenizer, bytes]:
    original = KINDS[kind]()
    tokenizer = read_tokenizer(original.to_str())
    return original, tokenizer, tokenizer_bytes(tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_originals(kind):
    """On instructions, languages, odd and random text, and characters of all scripts (every one when a bundle is
    built)."""
    original, tokenizer, table = taken(kind)
    checked = check_tokenizer(original.to_str(), tokenizer, table, stride=101)
    assert checked.texts > 1_500 and checked.ids > checked.texts


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
       | st.text("ab '\n\r\t▁1é\u0301<|s>", max_size=40))
def test_ids_of_any_text(kind, text):
    original, _, table = taken(kind)
    compare_ids(original, table, [text])


# ---- what the check must catch ---------------------------------------------------------------------------------------

def changed(kind: str, **parts) -> tuple[str, Tokenizer, bytes]:
    original, tokenizer, _ = taken(kind)
    other = replace(tokenizer, **parts)
    return original.to_str(), other, tokenizer_bytes(other)


def with_swapped_ranks(tokenizer: Tokenizer) -> Bpe:
    """Two merges of one left token, so that words with both pairs are merged in the other order."""
    merges = list(tokenizer.model.merges)
    merges[0], merges[-1] = merges[-1], merges[0]
    return replace(tokenizer.model, merges=tuple(merges))


def without_letters(spans):
    return tuple(s for s in spans if not s.first <= ord("w") <= s.last)


FAULTS = {
    "a swapped merge rank": ("gpt2", lambda t: {"model": with_swapped_ranks(t)}),
    "a missing merge": ("gemma", lambda t: {"model": replace(t.model, merges=t.model.merges[1:])}),
    "a dropped normaliser": ("wordpiece", lambda t: {"normalise": t.normalise[:-1]}),
    "marks that are not put in order": ("nfd, no accents", lambda t: {"normalise": ()}),
    "no composition": ("qwen2", lambda t: {"normalise": t.normalise[:-1]}),
    "another splitting rule": ("qwen2", lambda t: {"split": (replace(t.split[0], option=3),)}),
    "no splitting of digits": ("digits", lambda t: {"split": t.split[1:]}),
    "a character of another class": ("gpt2",
                                     lambda t: {"split": (replace(t.split[0],
                                                                  spans=without_letters(t.split[0].spans)),)}),
    "a lost added token": ("gpt2", lambda t: {"added": t.added[1:]}),
    "a token that leaves its blanks": ("gpt2",
                                       lambda t: {"added": tuple(replace(a, strip_left=False) for a in t.added)}),
    "no prefix": ("llama", lambda t: {"prefix": ()}),
    "no blank in front": ("metaspace first", lambda t: {"transform": t.transform[:1]}),
    "unknown characters not fused": ("unknown, fused", lambda t: {"model": replace(t.model, fuse_unknown=False)}),
    "a longer longest word": ("wordpiece", lambda t: {"model": replace(t.model, longest_word=21)}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_catches(fault):
    kind, change = FAULTS[fault]
    text, tokenizer, table = changed(kind, **change(taken(kind)[1]))
    with pytest.raises(ParityError) as error:
        check_tokenizer(text, tokenizer, table, stride=101)
    assert "instead of" in error.value.why and error.value.where.startswith("text ")


def test_the_difference_is_named():
    original, tokenizer, _ = taken("wordpiece")
    other = tokenizer_bytes(replace(tokenizer, suffix=(4,)))
    with pytest.raises(ParityError) as error:
        compare_ids(original, other, ["", "the pot"])
    assert error.value.why == "id 1: [2, 4] instead of [2, 3]" and error.value.where == "text ''"
    with pytest.raises(ParityError) as error:
        compare_ids(original, other, ["the pot"])
    got, want = RuntimeTokenizer(other).encode("the pot"), original.encode("the pot").ids
    assert error.value.why == f"id {len(want) - 1}: {got} instead of {want}"
    assert error.value.where == "text 'the pot'"


# ---- refusals --------------------------------------------------------------------------------------------------------

def without(kind: str, path: str, value) -> str:
    document = json.loads(KINDS[kind]().to_str())
    *parents, last = path.split(".")
    part = document
    for name in parents:
        part = part[name]
    part[last] = value
    return json.dumps(document)


REFUSED = {
    "model": lambda: Original(models.Unigram([("a", -1.0)], 0)).to_str(),
    "model, dropout": lambda: without("gpt2", "model.dropout", 0.1),
    "model, end_of_word_suffix": lambda: without("gpt2", "model.end_of_word_suffix", "</w>"),
    "model, byte_fallback": lambda: without("unknown, fused", "model.byte_fallback", True),
    "normalizer": lambda: without("gpt2", "normalizer", {"type": "Nmt"}),
    "normalizer, Replace": lambda: without("gpt2", "normalizer", {
        "type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}),
    "pre_tokenizer": lambda: without("gpt2", "pre_tokenizer", {"type": "UnicodeScripts"}),
    "pre_tokenizer, Split": lambda: without("gpt2", "pre_tokenizer", {
        "type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": False}),
    "pre_tokenizer, Digits": lambda: without("gpt2", "pre_tokenizer", {"type": "Sequence", "pretokenizers": [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        {"type": "Digits", "individual_digits": True}]}),
    "post_processor, TemplateProcessing": lambda: without("gpt2", "post_processor", {
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2, "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {}}),
    "the file": lambda: "{}",
}


@pytest.mark.parametrize("component", REFUSED)
def test_what_is_not_supported_is_refused_by_name(component):
    with pytest.raises(SourceError) as error:
        read_tokenizer(REFUSED[component]())
    assert error.value.where == f"tokenizer.json, {component}" and error.value.fix


def test_a_token_that_counts_only_between_words_is_refused():
    from tokenizers import AddedToken

    original = byte_bpe()
    original.add_tokens([AddedToken("drop", single_word=True)])
    with pytest.raises(SourceError, match='"drop"') as error:
        read_tokenizer(original.to_str())
    assert "single word" in error.value.why


# ---- length, bytes, texts --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pad_side", ["right", "left"])
@pytest.mark.parametrize("truncate", ["right", "left"])
def test_ids_are_cut_and_filled_up_as_by_the_original(pad_side, truncate):
    original = word_piece()
    original.enable_padding(direction=pad_side, pad_id=0, length=12)
    original.enable_truncation(12, direction=truncate)
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(original.to_str())))
    for text in ("put the bowl", "", "open the middle drawer of the cabinet and turn on the stove at once", "a " * 10):
        want = original.encode(text)
        ids, mask = runtime.fill(text, 12)
        assert ids.tolist() == want.ids and mask.astype(int).tolist() == want.attention_mask


def test_too_many_ids_are_refused_where_nothing_is_cut():
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(word_piece().to_str(), fit=Fit(pad=0))))
    assert runtime.fill("put", 6)[1].sum() == len(runtime.encode("put"))
    with pytest.raises(RuntimeFailure, match="too many tokens") as error:
        runtime.fill("a b c d e", 6)
    assert error.value.status == "TEXT_REFUSED" and error.value.why == "they are 7, the policy takes 6"


def test_an_ending_is_put_behind_once():
    text = gemma_like().to_str()
    runtime = RuntimeTokenizer(tokenizer_bytes(read_tokenizer(text, ending="\n")))
    want = Original.from_str(text).encode("lift\n").ids
    assert runtime.encode("lift") == runtime.encode("lift\n") == want
    assert runtime.encode("") == Original.from_str(text).encode("\n").ids


@pytest.mark.parametrize("data, at", [(b"ab\xff", 2), (b"\xc3", 0), (b"a\xc0\x80", 1), (b"\xed\xa0\x80", 0),
                                      (b"\xf4\x90\x80\x80", 0), (b"\xe2\x82", 0), (b"x\x80", 1),
                                      (b"\xf8\x88\x80\x80\x80", 0)])
def test_what_is_not_utf8_is_refused(data, at):
    """The original takes Python strings, which cannot hold it."""
    runtime = RuntimeTokenizer(taken("gpt2")[2])
    with pytest.raises(RuntimeFailure, match="not UTF-8") as error:
        runtime.encode(data)
    assert error.value.status == "TEXT_REFUSED" and f"byte {at} of {len(data)}" in error.value.why
    with pytest.raises(UnicodeDecodeError):
        data.decode()


def test_texts_up_to_the_limit_and_no_longer():
    """The longest texts fit into what was asked for at init, whatever they become."""
    for kind in KINDS:
        original, _, table = taken(kind)
        runtime = RuntimeTokenizer(table, 30)
        for character in ("a", " ", "\ufdfa"[:1], "가", "ΐ", "字", "<s>"):
            text = character * (30 // len(character.encode()))
            assert runtime.encode(text) == original.encode(text).ids, (kind, character)
        with pytest.raises(RuntimeFailure, match="too long") as error:
            runtime.encode("a" * 31)
        assert error.value.status == "TEXT_REFUSED"


def test_tables_are_a_function_of_the_tokenizer():
    text = taken("gemma")[0].to_str()
    assert tokenizer_bytes(read_tokenizer(text)) == tokenizer_bytes(read_tokenizer(text)) == taken("gemma")[2]


def test_the_corpus_is_the_same_for_every_build():
    assert corpus(("<s>",)) == corpus(("<s>",)) and "a<s>b" in corpus(("<s>",))
    assert set("".join(characters())) >= {chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000}
    assert len(corpus(())) > 400


