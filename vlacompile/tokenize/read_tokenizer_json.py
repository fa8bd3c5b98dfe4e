"""Converts a `tokenizer.json` to a Tokenizer. What cannot be converted exactly is refused with the component's name;
nothing is approximated."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from vlacompile.policy.text import Fit
from vlacompile.tokenize import characters
from vlacompile.tokenize.tokenizer import Added, Bpe, Step, Tokenizer, WordPiece
from vlart.errors import SourceError
from vlart.vocabulary import CUT_RULES, PREPEND_RULES, WORD_RULES

MAX_STEPS = 16
HOST = 'set text.tokenize = "host" in the recipe, and write the token ids'
_QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
EXPRESSIONS = {_QWEN2: "qwen2", _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"): "llama3"}
_CUTS = {"Removed": "removed", "Isolated": "alone", "MergedWithPrevious": "previous", "MergedWithNext": "next"}


def refused(component: str, why: str, fix: str = HOST) -> SourceError:
    return SourceError("the tokenizer cannot be compiled", where=f"tokenizer.json, {component}", why=why, fix=fix)


def read_tokenizer(text: str, *, fit: Fit | None = None, ending: str = "") -> Tokenizer:
    """text: content of a tokenizer.json. fit: padding and truncation; None: as the file says. ending: appended to a
    text that does not end with it. Raises SourceError naming the component that is not supported."""
    from tokenizers import Tokenizer as Original

    try:
        original = Original.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise refused("the file", str(error).splitlines()[0], "give the text of a tokenizer.json") from error
    document = json.loads(original.to_str())  # as parsed by the library, with defaults filled in
    try:
        return _read(document, original, fit, ending)
    except KeyError as error:
        raise refused("the file", f"there is no {error}", "save it again with this version of tokenizers") from error


def _read(document: dict, original, fit: Fit | None, ending: str) -> Tokenizer:
    normaliser = original.normalizer
    transform, split, bytewise = _split(document["pre_tokenizer"])
    model, unknown = _model(document["model"], bytewise)
    prefix, suffix = _around(document["post_processor"])
    added = []
    for id_, token in original.get_added_tokens_decoder().items():
        if token.single_word:
            raise refused(f'added_tokens, "{token.content}"', "it is matched only as a single word")
        text = normaliser.normalize_str(token.content) if token.normalized and normaliser else token.content
        if not text:
            raise refused(f'added_tokens, "{token.content}"', "normalisation leaves nothing of it")
        added.append(Added(text, id_, token.normalized, token.lstrip, token.rstrip))
    normalise = _normalise(document["normalizer"])
    if len(normalise) + len(transform) + len(split) > MAX_STEPS:
        raise refused("normalizer, pre_tokenizer", f"they have more than {MAX_STEPS} steps")
    ids = list(original.get_vocab(with_added_tokens=True).values())
    count = 1 + max([*ids, *prefix, *suffix, *(a.id for a in added)], default=0)
    return Tokenizer(normalise, transform, split, tuple(added), model, unknown, count, prefix, suffix,
                     fit or _fit(document), ending)


def _fit(document: dict) -> Fit:
    padding, truncation = document["padding"], document["truncation"]
    return Fit(pad=padding["pad_id"] if padding else 0, pad_side=padding["direction"].lower() if padding else "right",
               truncate=truncation["direction"].lower() if truncation else None)


# ---- normaliser ------------------------------------------------------------------------------------------------------

def _normalise(part: dict | None) -> tuple[Step, ...]:
    if part is None:
        return ()
    kind = part["type"]
    if kind == "Sequence":
        return tuple(step for p in part["normalizers"] for step in _normalise(p))
    if kind == "BertNormalizer":
        return _bert(part)
    if kind in ("NFD", "NFKD"):
        return _decompose(kind)
    if kind in ("NFC", "NFKC"):
        return (*_decompose(kind.replace("C", "D")), Step("compose", characters.combining_classes()))
    if kind in ("Lowercase", "StripAccents"):
        return _map(_changes_of(kind))
    if kind == "Replace":
        if "String" not in part["pattern"]:
            raise refused(f"normalizer, {kind}", f"its pattern is a regular expression: "
                                                 f"{part['pattern'].get('Regex')!r}")
        found = part["pattern"]["String"]
        return (Step("replace", find=found, put=part["content"]),) if found else ()
    if kind == "Prepend":
        return (Step("prepend", put=part["prepend"], option=PREPEND_RULES["always"]),)
    raise refused("normalizer", f"{kind} is not among BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Prepend, "
                                "Replace, Sequence, StripAccents")


@cache
def _changes_of(kind: str, **options) -> dict[int, tuple[int, ...]]:
    from tokenizers import normalizers

    return characters.changes(getattr(normalizers, kind)(**options).normalize_str)


def _map(mapping: dict[int, tuple[int, ...]]) -> tuple[Step, ...]:
    return (Step("map", characters.mapping_spans(mapping)),) if mapping else ()


def _decompose(form: str, before: dict[int, tuple[int, ...]] | None = None) -> tuple[Step, ...]:
    mapping = characters.chained(before or {}, characters.decomposition(form))
    return (*_map(mapping), Step("order", characters.combining_classes()))


def _bert(part: dict) -> tuple[Step, ...]:
    """Cleaning, spaces around ideographs and decomposition are per character, and so are, once marks are in canonical
    order, stripping accents and lowercasing."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    before: dict[int, tuple[int, ...]] = {}
    for name in ("clean_text", "handle_chinese_chars"):
        if part[name]:
            before = characters.chained(before, _changes_of("BertNormalizer", **off | {name: True}))
    strips = part["lowercase"] if part["strip_accents"] is None else part["strip_accents"]
    after = {c: to for c, to in _changes_of("BertNormalizer", **off | {"strip_accents": True}).items() if not to} \
        if strips else {}
    if part["lowercase"]:
        after = characters.chained(after, _changes_of("Lowercase"))
    return (*_decompose("NFD", before), *_map(after)) if strips else (*_map(before), *_map(after))


# ---- pre-tokeniser ---------------------------------------------------------------------------------------------------

def _split(part: dict | None) -> tuple[tuple[Step, ...], tuple[Step, ...], bool]:
    """(steps that transform a piece, steps that split it, whether words are encoded as bytes)."""
    parts = [] if part is None else _flat(part)
    transform: list[Step] = []
    split: list[Step] = []
    bytewise = False
    for i, p in enumerate(parts):
        kind = p["type"]
        if bytewise:
            raise refused(f"pre_tokenizer, {kind}", "it comes after ByteLevel, which has converted the text to bytes")
        changes, cuts = _PRE_TOKENIZERS[kind](p) if kind in _PRE_TOKENIZERS else _unknown(kind)
        if changes and i > 0:
            raise refused(f"pre_tokenizer, {kind}", "it changes the text and is not first in the sequence")
        bytewise = kind == "ByteLevel"
        transform += changes
        split += cuts
    return tuple(transform), tuple(split), bytewise


def _flat(part: dict) -> list[dict]:
    return [q for p in part["pretokenizers"] for q in _flat(p)] if part["type"] == "Sequence" else [part]


def _unknown(kind: str):
    raise refused("pre_tokenizer", f"{kind} is not among {', '.join(_PRE_TOKENIZERS)}, Sequence")


def _byte_level(p: dict):
    blank = [Step("prepend", put=" ", option=PREPEND_RULES["missing"])] if p["add_prefix_space"] else []
    return blank, [Step("cut_words", characters.word_classes(), option=WORD_RULES["gpt2"])] if p["use_regex"] else []


def _metaspace(p: dict):
    mark = p["replacement"]
    rule = {"always": "missing", "first": "missing_first", "never": None}[p["prepend_scheme"]]
    changes = [Step("replace", find=" ", put=mark)]
    changes += [Step("prepend", put=mark, option=PREPEND_RULES[rule])] if rule else []
    return changes, [Step("cut", find=mark, option=CUT_RULES["next"])] if p["split"] else []


def _at_pattern(p: dict):
    pattern, behaviour = p["pattern"], p["behavior"]
    if "String" in pattern and pattern["String"] and behaviour in _CUTS and not p["invert"]:
        return [], [Step("cut", find=pattern["String"], option=CUT_RULES[_CUTS[behaviour]])]
    rule = EXPRESSIONS.get(pattern.get("Regex"))
    # These expressions match every character, so there is nothing between matches to drop or join.
    if rule is None or not ((behaviour == "Isolated" and not p["invert"]) or (behaviour == "Removed" and p["invert"])):
        raise refused("pre_tokenizer, Split", f"the pattern {pattern} with {behaviour} is not supported")
    return [], [Step("cut_words", characters.word_classes(), option=WORD_RULES[rule])]


_PRE_TOKENIZERS: dict[str, Callable] = {
    "BertPreTokenizer": lambda p: ([], [Step("cut_bert", characters.bert_classes())]),
    "ByteLevel": _byte_level,
    "Digits": lambda p: ([], [Step("cut_digits", characters.digit_classes(), option=int(p["individual_digits"]))]),
    "Metaspace": _metaspace,
    "Split": _at_pattern,
}


# ---- model -----------------------------------------------------------------------------------------------------------

def _model(part: dict, bytewise: bool) -> tuple[WordPiece | Bpe, int | None]:
    vocabulary, kind, unknown = part["vocab"], part["type"], part.get("unk_token")
    if kind not in ("BPE", "WordPiece"):
        raise refused("model", f"{kind} is neither BPE nor WordPiece")
    if unknown is not None and unknown not in vocabulary:
        raise refused("model, unk_token", f'"{unknown}" is not in the vocabulary')
    if kind == "WordPiece":
        return _wordpiece(part, bytewise), vocabulary[unknown]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if part[name]:
            raise refused(f"model, {name}", f"BPE with the value {part[name]!r} is not supported")
    merges = tuple(_merge(vocabulary, pair) for pair in part["merges"])
    words, letters, byte_ids = {}, {}, ()
    if bytewise:
        if part["byte_fallback"]:
            raise refused("model, byte_fallback", "the pre-tokenizer has converted the text to bytes already")
        alphabet = byte_alphabet()
        byte_ids = tuple(vocabulary.get(c) for c in alphabet)
        as_byte = {c: b for b, c in enumerate(alphabet)}
        if part["ignore_merges"]:
            spelt = {t: i for t, i in vocabulary.items() if t and all(c in as_byte for c in t)}
            words = {bytes(as_byte[c] for c in t): i for t, i in spelt.items()}
    else:
        letters = {t: i for t, i in vocabulary.items() if len(t) == 1}
        if part["byte_fallback"]:
            byte_ids = tuple(vocabulary.get(f"<0x{b:02X}>") for b in range(256))
            if None in byte_ids:
                raise refused("model, byte_fallback", f'"<0x{byte_ids.index(None):02X}>" is not in the vocabulary')
        if part["ignore_merges"]:
            words = {t.encode(): i for t, i in vocabulary.items() if t}
    return Bpe(letters, byte_ids, words, merges, bool(part["fuse_unk"])), (
        None if unknown is None else vocabulary[unknown])


def _merge(vocabulary: dict[str, int], pair: list[str] | str) -> tuple[int, int, int]:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return vocabulary[left], vocabulary[right], vocabulary[left + right]


def _wordpiece(part: dict, bytewise: bool) -> WordPiece:
    if bytewise:
        raise refused("model, WordPiece", "ByteLevel before it is not supported")
    mark, vocabulary = part["continuing_subword_prefix"], part["vocab"]
    if not mark:
        raise refused("model, continuing_subword_prefix", "it is empty")
    return WordPiece({t.encode(): i for t, i in vocabulary.items() if t},
                     {t[len(mark):].encode(): i for t, i in vocabulary.items() if t.startswith(mark) and t != mark},
                     part["max_input_chars_per_word"])


def byte_alphabet() -> str:
    """The character that encodes each byte in byte-level BPE (Radford et al. 2019): printable ones are themselves, the
    others are numbered from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return "".join(chr(b) if b in printable else chr(0x100 + others.index(b)) for b in range(256))


# ---- post-processor --------------------------------------------------------------------------------------------------

def _around(part: dict | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids added before and after those of a text."""
    if part is None or part["type"] == "ByteLevel":  # the latter changes offsets only
        return (), ()
    kind = part["type"]
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (part["cls"][1],), (part["sep"][1],)
    if kind == "Sequence":
        found = [_around(p) for p in part["processors"]]
        if sum(any(f) for f in found) > 1:
            raise refused("post_processor, Sequence", "more than one part adds tokens")
        return next((f for f in found if any(f)), ((), ()))
    if kind != "TemplateProcessing":
        raise refused("post_processor", f"{kind} is not among BertProcessing, ByteLevel, RobertaProcessing, Sequence, "
                                        "TemplateProcessing")
    sides: list[list[int]] = [[]]
    for piece in part["single"]:
        if "Sequence" in piece:
            sides.append([])
        else:
            sides[-1] += part["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
    if len(sides) != 2:
        raise refused("post_processor, TemplateProcessing", f"the text occurs {len(sides) - 1} times in it")
    return tuple(sides[0]), tuple(sides[1])
