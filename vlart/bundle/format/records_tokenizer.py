"""Records of a tokenizer's table; see layout.py."""

from __future__ import annotations

from vlart.bundle.format.record import enum, flag, number, record, reserved, span

TOKENIZER = record(
    "tokenizer",
    "Exactly one in a tokenizer's file: how text becomes token ids. Text is cut at the `raw` tokens; every piece goes "
    "through the first `normalise` steps, is cut at the `normalised` tokens, goes through the next `transform` steps, "
    "is cut into words by the last `split` steps, and every word goes through the model.",
    enum("model", "token_model"),
    number("token_count", "u32", "ids are below this"),
    number("unknown", "u32", "id of what has no token, or NONE: it is left out"),
    flag("fuse_unknown", "BPE: 1: unknown characters side by side are one token"),
    number("longest_word", "u32", "WORDPIECE: characters; a longer word is unknown"),
    number("normalise", "u32", "number of steps"),
    number("transform", "u32", "number of steps"),
    number("split", "u32", "number of steps"),
    span("prefix", "indices", "ids before those of the text"),
    span("suffix", "indices", "ids after those of the text"),
    span("byte", "indices", "BPE: 256 ids, one per byte, or NONE; or no index"),
    span("word", "entry_ids", "WORDPIECE: words and their beginnings; BPE: whole words that are not merged"),
    span("rest", "entry_ids", "WORDPIECE: what follows the beginning of a word"),
    span("letter", "entry_ids", "BPE: single characters; none: bytes are what is merged"),
    span("raw", "entry_ids", "tokens cut out before the text is normalised; their ids are indices of added records"),
    span("normalised", "entry_ids", "the same, after"),
    number("pad", "u32", "id that fills a sequence up"),
    enum("pad_side", "text_side"),
    enum("truncate", "text_side", "that is cut off where there are too many ids; NONE: they are refused",
         optional=True),
    number("ending", "u32", "byte offset in the blob section: put behind a text that does not end with it"),
    number("ending_bytes", "u32", "0: nothing is"),
    reserved(),
)

STEP = record(
    "step",
    "One step of a tokenizer; which fields are in use follows from the kind.",
    enum("kind", "text_step"),
    number("option", "u32", "PREPEND: prepend_rule; CUT: cut_rule; DIGITS: 1: each alone; WORDS: word_rule"),
    span("span", "spans", "MAP; ORDER: combining classes; CUT_...: char_class bits"),
    number("find", "u32", "byte offset in the blob section: REPLACE, CUT"),
    number("find_bytes", "u32", "at least 1 where it is in use"),
    number("put", "u32", "byte offset in the blob section: REPLACE, PREPEND"),
    number("put_bytes", "u32", ""),
)

SPAN = record(
    "span",
    "Code points first..last. The spans of a step are in ascending order.",
    number("first", "u32", "code point"),
    number("last", "u32", "code point"),
    number("action", "u32", "MAP: span_action; ORDER: combining class 1..255; else char_class bits"),
    number("argument", "u32", "SHIFT: added, modulo 2^32; SEQUENCE: indices: count, then code points"),
)

ADDED = record(
    "added",
    "A token that is looked for in the text itself.",
    number("id", "u32", "token id"),
    flag("strip_left", "1: the white space before it belongs to it"),
    flag("strip_right", "1: the white space after it belongs to it"),
    reserved(),
)

COMPOSITION = record(
    "composition",
    "Two code points that become one, in ascending order of (first, second). Hangul syllables are computed.",
    number("first", "u32", "code point"),
    number("second", "u32", "code point"),
    number("composed", "u32", "code point"),
    reserved(),
)
