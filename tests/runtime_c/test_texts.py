"""Tokenizer tables, texts and instructions: what they give, and one mutation per rule that the reader enforces."""

from __future__ import annotations

import re
from ctypes import c_size_t

import numpy as np
import pytest
import sample_tokenizers as samples
from plan_damage import change, rename
from sample_bundles import NONE
from vlart_ctypes import Failure, Policy

from vlart import vocabulary
from vlart.errors import RuntimeFailure
from vlart.runtime.tokenizer import RuntimeTokenizer

ONE = vocabulary.TEXT_STEPS


@pytest.mark.parametrize("name", samples.TABLES)
def test_tables_give_what_they_are_meant_to(name):
    table, expected = samples.TABLES[name]
    runtime = RuntimeTokenizer(table().to_bytes(), 64)
    assert {text: runtime.encode(text) for text in expected} == expected


def test_later_minor_versions_of_a_table_are_read():
    table = samples.word_piece()
    table.later = True
    assert RuntimeTokenizer(table.to_bytes(), 64).encode("Put it!") == samples.WORD_PIECE["Put it!"]


def value(section: str, index: int, number: int):
    return change(section, index, value=number)


def without(section: str):
    def apply(table) -> None:
        table.records[section] = table.records[section][:-1]
    return apply


# Steps of word_piece(): map 0, order 1, map 2, compose 3, cut_bert 4. Spans: 0-4; 5, 6; 7, 8; 9, 10; 11, 12.
# Of byte_pairs(): replace 0, prepend 1, cut 2, cut_digits 3, cut_words 4. Merges: rows of 262 tokens; 0 (32,256), 1
# (97,98).
TABLE_RULES = {
    "a model is unknown": ("word_piece", change("tokenizer", 0, model=3), "model 3 is unknown"),
    "there are no tokens": ("word_piece", change("tokenizer", 0, token_count=0), "no tokens"),
    "the unknown token is none": ("word_piece", change("tokenizer", 0, unknown=12), "unknown token"),
    "WordPiece needs it": ("word_piece", change("tokenizer", 0, unknown=NONE), "unknown token"),
    "steps are missing": ("word_piece", change("tokenizer", 0, split=2), "its steps"),
    "steps overflow": ("word_piece", change("tokenizer", 0, normalise=0xFFFFFFFF), "its steps"),
    "a cut among changes": ("word_piece", change("tokenizer", 0, normalise=5, split=0), "does not belong there"),
    "a change among cuts": ("word_piece", change("steps", 4, kind=ONE["map"]), "does not belong there"),
    "a step is unknown": ("word_piece", change("steps", 0, kind=9), "kind 9 is unknown"),
    "a rule of words is unknown": ("byte_pairs", change("steps", 4, option=9), "rule is unknown"),
    "a rule of a cut is unknown": ("byte_pairs", change("steps", 2, option=9), "rule is unknown"),
    "a rule of a prefix is unknown": ("byte_pairs", change("steps", 1, option=9), "rule is unknown"),
    "an option of digits is unknown": ("byte_pairs", change("steps", 3, option=2), "option is unknown"),
    "nothing is looked for": ("byte_pairs", change("steps", 0, find_bytes=0), "empty string"),
    "a string leaves the blob": ("byte_pairs", change("steps", 0, find=1 << 20), "not inside the blob"),
    "a string is long": ("byte_pairs", change("steps", 1, put_bytes=1 << 30), "not inside the blob"),
    "a string is cut in a character": ("byte_pairs", change("steps", 1, put=2, put_bytes=1), "not UTF-8"),
    "spans do not exist": ("word_piece", change("steps", 0, span_count=99), "leaves the spans section"),
    "spans are not in order": ("word_piece", change("spans", 1, first=5), "not in order"),
    "a span is no code point": ("word_piece", change("spans", 4, last=0x110000), "not in order"),
    "a span's action is unknown": ("word_piece", change("spans", 0, action=9), "action is unknown"),
    "a shift to surrogates": ("word_piece", change("spans", 7, argument=0xD7B0), "no code points"),
    "a shift beyond the last": ("word_piece", change("spans", 7, argument=0x110000), "no code points"),
    "a sequence does not exist": ("word_piece", change("spans", 2, argument=999), "not inside the indices"),
    "a sequence is too long": ("word_piece", value("indices", 2, 999), "not inside the indices"),
    "a sequence is no code point": ("word_piece", value("indices", 3, 0xD800), "no code point"),
    "Hangul is elsewhere": ("word_piece", change("spans", 4, first=0xAC01), "Hangul"),
    "a combining class of 0": ("word_piece", change("spans", 5, action=0), "class"),
    "a class that words do not have": ("byte_pairs", change("spans", 1, action=3), "class"),
    "a class that BERT does not have": ("word_piece", change("spans", 11, action=2), "class"),
    "text grows without measure": ("byte_pairs", change("steps", 0, put=0, put_bytes=9), None),
    "a prefix is no token": ("word_piece", value("indices", 0, 12), "prefix or suffix"),
    "bytes are not 256": ("byte_pairs", change("tokenizer", 0, byte_count=255), "bytes are none"),
    "a byte is no token": ("byte_pairs", value("indices", 7, 262), "bytes are none"),
    "a pad side is unknown": ("word_piece", change("tokenizer", 0, pad_side=2), "pad_side 2 is unknown"),
    "a cut side is unknown": ("word_piece", change("tokenizer", 0, truncate=2), "truncate 2 is unknown"),
    "a pad id is no i32": ("word_piece", change("tokenizer", 0, pad=1 << 31), "no i32"),
    "an ending leaves the blob": ("byte_pairs", change("tokenizer", 0, ending=1 << 20), "ending is no text"),
    "entries do not exist": ("word_piece", change("tokenizer", 0, word_count=99), "leaves the entries section"),
    "an entry leaves the blob": ("word_piece", value("entry_begins", 5, 1 << 20), "not inside the blob"),
    "an entry's id is no token": ("word_piece", value("entry_ids", 0, 12), "none of the vocabulary"),
    "an added token is no record": ("word_piece", value("entry_ids", 12, 1), "none of the vocabulary"),
    "an added token is no token": ("word_piece", change("added", 0, id=12), "none of the vocabulary"),
    "beginnings are missing": ("word_piece", without("entry_begins"), "one beginning more"),
    "entries are not in order": ("word_piece", change("tokenizer", 0, word_begin=9, word_count=3), "not in order"),
    "merge rows are missing": ("byte_pairs", without("merge_rows"), "do not fit together"),
    "merge ranks are missing": ("byte_pairs", without("merge_ranks"), "do not fit together"),
    "merge rows are not in order": ("byte_pairs", value("merge_rows", 90, 0), "not in order"),
    "a merge is of no token": ("byte_pairs", value("merge_rights", 0, 262), "none of the vocabulary"),
    "a merge gives no token": ("byte_pairs", value("merge_ids", 1, 262), "none of the vocabulary"),
    "a row beyond the merges": ("byte_pairs", value("merge_rows", 33, 7), "none of the vocabulary|not in order"),
    "a composition of no code point": ("word_piece", change("compositions", 0, composed=0xDFFF), "no code points"),
}


@pytest.mark.parametrize("rule", TABLE_RULES)
def test_tables_are_checked(rule):
    name, apply, why = TABLE_RULES[rule]
    table = samples.TABLES[name][0]()
    RuntimeTokenizer(table.to_bytes(), 64)
    apply(table)
    if why is None:  # allowed: nine bytes for two
        assert RuntimeTokenizer(table.to_bytes(), 64)
        return
    with pytest.raises(RuntimeFailure) as failure:
        RuntimeTokenizer(table.to_bytes(), 64)
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


PLAN_RULES = {
    "no tokenizer's file": (change("texts", 0, tokenizer=1), "no file of that kind"),
    "a file that does not exist": (change("texts", 0, tokenizer=9), "tokenizer 9 does not exist"),
    "a source that does not exist": (change("texts", 0, tokens=2), "does not exist"),
    "a mask that does not exist": (change("texts", 0, mask=70), "does not exist"),
    "a mask that is the tokens": (change("texts", 0, mask=0), "another text's"),
    "tokens that are none": (change("texts", 0, tokens=1, mask=NONE), "not i32 or i64"),
    "a mask that is none": (change("values", 1, dtype=vocabulary.DTYPES["u8"]), "not bool|shape"),
    "no text at all": (change("texts", 0, max_bytes=0), "longest text"),
    "a text beyond all bounds": (change("texts", 0, max_bytes=(1 << 20) + 1), "longest text"),
    "an instruction that is no string": (change("instructions", 0, text=1 << 20), "outside the strings"),
    "values that do not exist": (change("instructions", 0, stored_count=5), "leaves the stored section"),
    "a source that is not stored": (change("instructions", 0, source=7), "source 7 does not exist"),
    "an output that is missing": (change("instructions", 0, stored_count=3), "missing"),
    "a value that is missing": (change("instructions", 0, stored_begin=1, stored_count=3), "not stored"),
    "a value of no source or stage": (change("stored", 0, value=99), "does not exist"),
    "a weight of another shape": (change("stored", 0, weight=1), "another shape"),
    "two texts of one source": (lambda plan: plan.records["texts"].append(dict(plan.records["texts"][0])),
                                "another text's"),
    "a name without an end": (rename("instructions", 0, "x" * 1024, "text"), "longer than 1023"),
}


@pytest.mark.parametrize("rule", PLAN_RULES)
def test_texts_and_instructions_are_checked(lib, tmp_path, rule):
    apply, why = PLAN_RULES[rule]
    bundle = samples.spoken()
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


def test_a_text_through_the_engine(lib, ort, tmp_path):
    """The C tests run it on the null engine; `text` is written as its ids."""
    with Policy(lib, samples.spoken().write(tmp_path)).start(ort) as policy:
        data = b"put it"
        policy.tick("vlart_session_write_text", 0, data, c_size_t(len(data)))
        policy.step()
        np.testing.assert_array_equal(policy.read("read"), [[2, 4, 6, 3, 0, 0]])
        assert policy.read("heard").tolist() == [[True] * 4 + [False] * 2]


def test_a_tokenizer_of_another_version_is_refused(lib, tmp_path):
    from sample_bundles import sealed

    bundle = samples.spoken()
    table = bundle.files["tokenizers/0.bin"]
    bundle.files["tokenizers/0.bin"] = sealed(table[:8] + b"\x07" + table[9:])
    with pytest.raises(Failure) as failure, Policy(lib, bundle.write(tmp_path)):
        pass
    assert failure.value.status == "VERSION" and "tokenizers/0.bin" in failure.value.where
