"""Two small tokenizer tables written record by record, which use every kind of step between them, and what they
give."""

from __future__ import annotations

import numpy as np
from onnx import helper
from sample_bundles import NONE, Bundle, Container

from vlart import vocabulary
from vlart.bundle.format import layout

STEP, ACTION, CLASS = vocabulary.TEXT_STEPS, vocabulary.SPAN_ACTIONS, vocabulary.CHAR_CLASSES
BLANKS = [(9, 10), (32, 32)]


class Table(Container):
    def __init__(self, **record):
        super().__init__(layout.TOKENIZER_MAGIC, layout.TOKENIZER_SECTIONS)
        ranges = {f"{name}_{key}": 0 for name in ("prefix", "suffix", "byte", "word", "rest", "letter", "raw",
                                                  "normalised") for key in ("begin", "count")}
        self.add("tokenizer",
                 **ranges | {"unknown": NONE, "fuse_unknown": 0, "longest_word": 0, "pad": 0, "pad_side": 0,
                             "truncate": 0, "ending": 0, "ending_bytes": 0} | record)
        self.begins: list[int] = []

    @property
    def record(self) -> dict:
        return self.records["tokenizer"][0]

    def entries(self, role: str, ids: dict[str, int]) -> None:
        """Before anything else goes to the blob."""
        begin = len(self.begins)
        for text, number in sorted((t.encode(), i) for t, i in ids.items()):
            self.begins.append(len(self.blob))
            self.blob += text
            self.scalars("entry_ids", [number])
        self.record.update({f"{role}_begin": begin, f"{role}_count": len(ids)})

    def text(self, text: str) -> tuple[int, int]:
        self.blob += text.encode()
        return len(self.blob) - len(text.encode()), len(text.encode())

    def ids(self, role: str, ids: list[int]) -> None:
        self.record.update({f"{role}_begin": self.scalars("indices", ids), f"{role}_count": len(ids)})

    def step(self, kind: str, spans=(), find: str = "", put: str = "", option: int = 0) -> None:
        """spans: (first, last, action, argument)"""
        begin = len(self.records.get("spans", []))
        for first, last, action, argument in spans:
            self.add("spans", first=first, last=last, action=action, argument=argument)
        (found, found_bytes), (given, given_bytes) = self.text(find), self.text(put)
        self.add("steps", kind=STEP[kind], option=option, span_begin=begin, span_count=len(spans), find=found,
                 find_bytes=found_bytes, put=given, put_bytes=given_bytes)

    def finish(self, merges: dict[tuple[int, int], int] | None = None) -> Table:
        """merges: {(left, right): id of both}, by rank"""
        self.scalars("entry_begins", [*self.begins, self.end])
        if merges is not None:
            order = sorted(merges)
            lefts = [left for left, _ in order]
            self.scalars("merge_rows", [sum(x < t for x in lefts) for t in range(self.record["token_count"] + 1)])
            self.scalars("merge_rights", [right for _, right in order])
            self.scalars("merge_ranks", [list(merges).index(pair) for pair in order])
            self.scalars("merge_ids", [merges[pair] for pair in order])
        return self

    def close_entries(self) -> None:
        self.end = len(self.blob)


def word_piece() -> Table:
    """Lower case, no accents, blanks around ideographs."""
    table = Table(model=vocabulary.TOKEN_MODELS["wordpiece"], token_count=12, unknown=1, longest_word=8, normalise=4,
                  transform=0, split=1)
    table.entries("word", {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "put": 4, "pu": 5, "it": 6, "字": 7, "!": 8,
                           "e": 9})
    table.entries("rest", {"t": 10, "s": 11})
    table.add("added", id=3, strip_left=1, strip_right=0)
    table.entries("raw", {"[SEP]": 0})
    table.close_entries()
    table.ids("prefix", [2])
    table.ids("suffix", [3])
    sequence = table.scalars("indices", [2, ord("e"), 0x301])
    table.step("map", [(0, 8, ACTION["delete"], 0), (9, 10, ACTION["sequence"], table.scalars("indices", [1, 32])),
                       (0xE9, 0xE9, ACTION["sequence"], sequence), (0x4E00, 0x9FFF, ACTION["space"], 0),
                       (0xAC00, 0xD7A3, ACTION["hangul"], 0)])
    table.step("order", [(0x301, 0x301, 230, 0), (0x323, 0x323, 220, 0)])
    table.step("map", [(ord("A"), ord("Z"), ACTION["shift"], 32), (0x301, 0x301, ACTION["delete"], 0)])
    table.step("compose", [(0x301, 0x301, 230, 0), (0x323, 0x323, 220, 0)])
    table.add("compositions", first=ord("e"), second=0x323, composed=0x1EB9)
    table.step("cut_bert", [(32, 32, CLASS["space"], 0), (33, 47, CLASS["punctuation"], 0)])
    return table.finish()


WORD_PIECE = {  # text: ids
    "Put it!": [2, 4, 6, 8, 3], "puts": [2, 4, 11, 3], "put  [SEP]it": [2, 4, 3, 6, 3], "é 字字": [2, 9, 7, 7, 3],
    "e\u0323": [2, 1, 3], "": [2, 3], "가": [2, 1, 3], "putputput": [2, 1, 3],
}


def byte_pairs() -> Table:
    """Bytes merged in words; a mark stands for a blank at the start."""
    table = Table(model=vocabulary.TOKEN_MODELS["bpe"], token_count=262, normalise=1, transform=1, split=3, pad=261,
                  truncate=NONE, pad_side=1)
    table.entries("word", {"go": 258})
    table.entries("letter", {"ß": 259})
    table.add("added", id=260, strip_left=0, strip_right=1)
    table.entries("normalised", {"<x>": 0})
    table.close_entries()
    table.ids("byte", list(range(256)))
    table.step("replace", find="--", put="-")
    table.step("prepend", put=" ", option=vocabulary.PREPEND_RULES["missing"])
    table.step("cut", find="|", option=vocabulary.CUT_RULES["previous"])
    classes = [(9, 10, CLASS["space"], 0), (32, 32, CLASS["space"], 0), (ord("0"), ord("9"), CLASS["number"], 0),
               (ord("a"), ord("z"), CLASS["letter"], 0)]
    table.step("cut_digits", [(ord("0"), ord("9"), CLASS["number"], 0)], option=1)
    table.step("cut_words", classes, option=vocabulary.WORD_RULES["qwen2"])
    table.record["ending"], table.record["ending_bytes"] = table.text("\n")
    return table.finish({(97, 98): 256, (32, 256): 257})


BYTE_PAIRS = {
    "ab": [257, 10], "ab12": [257, 49, 50, 10], "ab|ab\n": [257, 124, 256, 10], "<x>  ab": [260, 257, 10],
    "a--b": [32, 97, 45, 98, 10], "ß": [32, 259, 10],
}
TABLES = {"word_piece": (word_piece, WORD_PIECE), "byte_pairs": (byte_pairs, BYTE_PAIRS)}


WAIT = {"tokens": np.array([[2, 11, 11, 3, 0, 0]]), "mask": np.array([[True] * 4 + [False] * 2]),
        "read": np.array([[7, 7, 7, 7, 7, 7]]), "heard": np.array([[True] * 6])}


def spoken() -> Bundle:
    """A source of token ids i64[1,6] and its mask, which a stage hands on as "read" and "heard". One instruction is
    known, "wait": its values are none that the tokenizer or the stage would give."""
    bundle = Bundle("spoken")
    bundle.source("tokens", "i64", (1, 6), "task")
    bundle.source("mask", "bool", (1, 6), "task")
    bundle.value("read", "i64", (1, 6))
    bundle.value("heard", "bool", (1, 6))
    bundle.stage("language",
                 [helper.make_node("Identity", ["i0"], ["o0"]), helper.make_node("Identity", ["i1"], ["o1"])],
                 [0, 1], [("i0", "tokens", "whole"), ("i1", "mask", "whole")],
                 [("o0", "read", "whole"), ("o1", "heard", "whole")])
    bundle.text(0, 1, word_piece().to_bytes(), 32)
    plan = bundle.plan
    for name, array in WAIT.items():
        plan.add("stored", value=bundle.values[name], weight=bundle.weight(name, array))
    plan.add("instructions", text=plan.string("wait"), source=0, stored_begin=0, stored_count=len(WAIT))
    return bundle
