"""Records of a tokenizer's table; see layout.py."""

from __future__ import annotations

from vlacompile.bundle.format.record import record, span

TOKENIZER = record(
    "tokenizer",
    "Exactly one in a tokenizer's file: how text becomes token ids. Text is cut at the `raw` tokens; every piece goes "
    "through the first `normalise` steps, is cut at the `normalised` tokens, goes through the next `transform` steps, is "
    "cut into words by the last `split` steps, and every word goes through the model.",
    ("model", "u32", "token_model"),
    ("token_count", "u32", "ids are below this"),
    ("unknown", "u32", "id of what has no token, or NONE: it is left out"),
    ("fuse_unknown", "u32", "BPE: 1: unknown characters side by side are one token"),
    ("longest_word", "u32", "WORDPIECE: characters; a longer word is unknown"),
    ("normalise", "u32", "number of steps"),
    ("transform", "u32", "number of steps"),
    ("split", "u32", "number of steps"),
    *span("prefix", "indices: ids before those of the text"),
    *span("suffix", "indices: ids after those of the text"),
    *span("byte", "indices: BPE: 256 ids, one per byte, or NONE; or no index"),
    *span("word", "entries: WORDPIECE: words and their beginnings; BPE: whole words that are not merged"),
    *span("rest", "entries: WORDPIECE: what follows the beginning of a word"),
    *span("letter", "entries: BPE: single characters; none: bytes are what is merged"),
    *span("raw", "entries: tokens cut out before the text is normalised; their ids are indices of added records"),
    *span("normalised", "entries: the same, after"),
    ("pad", "u32", "id that fills a sequence up"),
    ("pad_side", "u32", "text_side"),
    ("truncate", "u32", "text_side that is cut off where there are too many ids, or NONE: they are refused"),
    ("ending", "u32", "byte offset in the blob section: put behind a text that does not end with it"),
    ("ending_bytes", "u32", "0: nothing is"),
    ("reserved", "u32", "zero"),
)

STEP = record(
    "step",
    "One step of a tokenizer; which fields are in use follows from the kind.",
    ("kind", "u32", "text_step"),
    ("option", "u32", "PREPEND: prepend_rule; CUT: cut_rule; DIGITS: 1: each alone; WORDS: word_rule"),
    *span("span", "spans: MAP; ORDER: combining classes; CUT_...: char_class bits"),
    ("find", "u32", "byte offset in the blob section: REPLACE, CUT"),
    ("find_bytes", "u32", "at least 1 where it is in use"),
    ("put", "u32", "byte offset in the blob section: REPLACE, PREPEND"),
    ("put_bytes", "u32", ""),
)

SPAN = record(
    "span",
    "Code points first..last. The spans of a step are in ascending order.",
    ("first", "u32", "code point"),
    ("last", "u32", "code point"),
    ("action", "u32", "MAP: span_action; ORDER: combining class 1..255; else char_class bits"),
    ("argument", "u32", "SHIFT: added, modulo 2^32; SEQUENCE: indices: count, then code points"),
)

ADDED = record(
    "added",
    "A token that is looked for in the text itself.",
    ("id", "u32", "token id"),
    ("strip_left", "u32", "1: the white space before it belongs to it"),
    ("strip_right", "u32", "1: the white space after it belongs to it"),
    ("reserved", "u32", "zero"),
)

COMPOSITION = record(
    "composition",
    "Two code points that become one, in ascending order of (first, second). Hangul syllables are computed.",
    ("first", "u32", "code point"),
    ("second", "u32", "code point"),
    ("composed", "u32", "code point"),
    ("reserved", "u32", "zero"),
)
