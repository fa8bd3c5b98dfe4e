"""Per-character behaviour of the original library, obtained by querying it: it has Unicode tables of its own, of other
versions than Python's. Nothing here is taken from `unicodedata`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from vlacompile.tokenize.tokenizer import Span

SEPARATOR = "\ua66e"  # a letter that nothing decomposes to, composes with, changes or treats as a mark
POINTS = tuple(c for c in range(0x110000) if not 0xD800 <= c < 0xE000)
HANGUL = range(0xAC00, 0xD7A4)


def changes(normalise: Callable[[str], str]) -> dict[int, tuple[int, ...]]:
    """{code point: its replacement}, for the code points that change."""
    points = [c for c in POINTS if chr(c) != SEPARATOR]
    parts = normalise(SEPARATOR.join(map(chr, points))).split(SEPARATOR)
    assert len(parts) == len(points) and normalise(SEPARATOR) == SEPARATOR
    return {c: tuple(map(ord, part)) for c, part in zip(points, parts, strict=True) if part != chr(c)}


def chained(first: dict[int, tuple[int, ...]], then: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The composition of two mappings."""
    both = {c: tuple(x for p in to for x in then.get(p, (p,))) for c, to in first.items()}
    both |= {c: to for c, to in then.items() if c not in first}
    return {c: to for c, to in both.items() if to != (c,)}


def mapping_spans(mapping: dict[int, tuple[int, ...]]) -> tuple[Span, ...]:
    """The spans of a "map" step."""
    mapping, hangul = dict(mapping), []
    if all(mapping.get(c) == _decomposed_hangul(c) for c in HANGUL):
        hangul = [Span(HANGUL.start, HANGUL.stop - 1, "hangul")]
        mapping = {c: to for c, to in mapping.items() if c not in HANGUL}
    spans: list[Span] = []
    for c in sorted(mapping):
        span = Span(c, c, *_action(c, mapping[c]))
        last = spans[-1] if spans else None
        if last and last.last == c - 1 and (last.action, last.argument) == (span.action, span.argument):
            spans[-1] = Span(last.first, c, last.action, last.argument)
        else:
            spans.append(span)
    return tuple(sorted(spans + hangul, key=lambda s: s.first))


def _action(c: int, to: tuple[int, ...]) -> tuple[str, int | tuple[int, ...]]:
    if not to:
        return "delete", 0
    if to == (0x20, c, 0x20):
        return "space", 0
    if len(to) == 1 and to[0] != 0x20:  # a run of code points that become spaces is one span
        return "shift", (to[0] - c) & 0xFFFFFFFF
    return "sequence", to


def _decomposed_hangul(c: int) -> tuple[int, ...]:
    """The Hangul decomposition of Unicode, section 3.12."""
    lead, vowel, tail = (c - 0xAC00) // 588, (c - 0xAC00) % 588 // 28, (c - 0xAC00) % 28
    return (0x1100 + lead, 0x1161 + vowel) + ((0x11A7 + tail,) if tail else ())


def class_spans(classes: dict[int, Iterable[int]]) -> tuple[Span, ...]:
    """{class: its code points}, disjoint, as spans."""
    of = {c: number for number, points in classes.items() for c in points}
    assert len(of) == sum(len(tuple(points)) for points in classes.values()), "classes are disjoint"
    spans: list[Span] = []
    for c in sorted(of):
        last = spans[-1] if spans else None
        if last and last.last == c - 1 and last.action == of[c]:
            spans[-1] = Span(last.first, c, of[c])
        else:
            spans.append(Span(c, c, of[c]))
    return tuple(spans)


@cache
def combining_classes() -> tuple[Span, ...]:
    """Canonical combining classes, inferred from the reordering: a mark is moved before one of a higher class."""
    from tokenizers import normalizers

    nfd = normalizers.NFD().normalize_str
    low, high = "\u0334", "\u0345"  # classes 1 and 240, the lowest and the highest
    candidates = [c for c in POINTS if nfd(chr(c)) == chr(c) and chr(c) != SEPARATOR]

    def swaps(pairs: list[str]) -> list[bool]:
        parts = nfd(SEPARATOR.join(pairs)).split(SEPARATOR)
        return [part != pair for part, pair in zip(parts, pairs, strict=True)]

    after = swaps([chr(c) + low for c in candidates])
    before = swaps([high + chr(c) for c in candidates])
    marks = [c for c, a, b in zip(candidates, after, before, strict=True) if a or b or chr(c) in (low, high)]
    return class_spans(_ranked(marks, lambda a, b: nfd(chr(a) + chr(b)) != chr(a) + chr(b)))


def _ranked(marks: list[int], is_above: Callable[[int, int], bool]) -> dict[int, list[int]]:
    """{1, 2, ...: marks of one class}, by insertion sort."""
    groups: list[list[int]] = []
    for mark in marks:
        low, high = 0, len(groups)
        while low < high:
            middle = (low + high) // 2
            other = groups[middle][0]
            if is_above(mark, other):
                low = middle + 1
            elif is_above(other, mark):
                high = middle
            else:
                groups[middle].append(mark)
                break
        else:
            groups.insert(low, [mark])
    return {i + 1: group for i, group in enumerate(groups)}


@cache
def decomposition(form: str) -> dict[int, tuple[int, ...]]:
    """form: NFD or NFKD."""
    from tokenizers import normalizers

    return changes(getattr(normalizers, form)().normalize_str)


@cache
def compositions() -> tuple[tuple[int, int, int], ...]:
    """(first, second, composed) of every canonical composition except Hangul."""
    from tokenizers import normalizers

    nfc, found = normalizers.NFC().normalize_str, []
    for c, parts in decomposition("NFD").items():
        if c in HANGUL or nfc(chr(c)) != chr(c):
            continue
        first = nfc("".join(map(chr, parts[:-1])))
        if len(first) == 1 and nfc(first + chr(parts[-1])) == chr(c):
            found.append((ord(first), parts[-1], c))
    return tuple(sorted(found))


def matching(expression: str) -> tuple[int, ...]:
    """Code points that a character class of the library's regular expressions matches."""
    from tokenizers import Regex, normalizers

    kept = normalizers.Replace(Regex(f"[^{expression}]"), "").normalize_str("".join(map(chr, POINTS)))
    return tuple(map(ord, kept))


@cache
def word_classes() -> tuple[Span, ...]:
    """Letters, numbers and white space of the splitting expressions."""
    return class_spans({1: matching(r"\s"), 2: matching(r"\p{L}"), 4: matching(r"\p{N}")})


def _pieces(splitter) -> tuple[set[int], set[int]]:
    """(code points that are dropped, those that become a piece of their own) between letters."""
    text = "a" + "a".join(map(chr, POINTS)) + "a"
    pieces = splitter.pre_tokenize_str(text)
    alone = {ord(piece) for piece, _ in pieces if len(piece) == 1} - {ord("a")}
    kept = {c for piece, _ in pieces for c in map(ord, piece)}
    return set(POINTS) - kept, alone


@cache
def bert_classes() -> tuple[Span, ...]:
    from tokenizers import pre_tokenizers

    blanks, punctuation = _pieces(pre_tokenizers.BertPreTokenizer())
    return class_spans({1: sorted(blanks), 8: sorted(punctuation)})


@cache
def digit_classes() -> tuple[Span, ...]:
    from tokenizers import pre_tokenizers

    return class_spans({4: sorted(_pieces(pre_tokenizers.Digits(individual_digits=True))[1])})
