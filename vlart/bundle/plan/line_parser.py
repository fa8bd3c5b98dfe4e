"""The lines of plan.txt as regular expressions: which line it is, and what its fields hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from vlart.bundle.format.plan_lines import Lines
from vlart.bundle.format.record import Record
from vlart.bundle.format.template import Place, pieces
from vlart.bundle.plan.field_text import NO_ITEMS, item_kind, parsed, pattern
from vlart.bundle.plan.record_types import class_of, make, record_of
from vlart.errors import BundleError


@dataclass(frozen=True)
class _Form:
    """One way that a line can look. parent: the line that it stands below; places: of the expression's groups."""

    node: Lines
    parent: Lines | None
    member: str
    expression: re.Pattern
    places: tuple[Place, ...]


class LineParser:
    def __init__(self, nodes: tuple[Lines, ...]):
        self._forms: dict[str, list[_Form]] = {}  # by the line's first word
        for form in _forms(nodes, None):
            self._forms.setdefault(_first_word(form), []).append(form)

    def read(self, line: str, number: int) -> tuple[Lines, Lines | None, str, dict[str, object]]:
        """(line of PLAN_LINES, the one that it stands below, member of Record.by, {attribute: value})"""
        first = line.split(maxsplit=1)[0] if line.strip() else ""
        if first not in self._forms:
            self.refuse(line, number, "no line begins like this")
        for form in self._forms[first]:
            found = form.expression.fullmatch(line)
            if found:
                try:
                    return form.node, form.parent, form.member, _values(form.places, found.groups())
                except ValueError as error:
                    self.refuse(line, number, str(error), error)
        return self.refuse(line, number, f'a "{first}" line has another form')

    def refuse(self, line: str, number: int, why: str, cause: Exception | None = None) -> NoReturn:
        raise BundleError("not a line of a plan", where=f"line {number}: {line[:60]}", why=why,
                          fix="print the plan anew with `vlacompile inspect --plan`") from cause


def _forms(nodes: tuple[Lines, ...], parent: Lines | None) -> Iterator[_Form]:
    for node in nodes:
        record = record_of(node.section)
        texts: Mapping[str, str] = {"": node.text or record.text} if node.text or not record.by else record.text
        for member, text in texts.items():
            if text:
                expression, places = _expression(record, text, member)
                yield _Form(node, parent, member, re.compile(re.escape(node.lead) + expression), places)
        yield from _forms(node.lines, node)


def _first_word(form: _Form) -> str:
    record = record_of(form.node.section)
    text = form.node.text or (record.text[form.member] if record.by else record.text)
    return (form.node.lead + text.replace("{", " ")).split()[0]


def _expression(record: Record, text: str, member: str) -> tuple[str, tuple[Place, ...]]:
    expression, places = "", []
    for piece in pieces(record, text, member):
        if isinstance(piece, str):
            expression += re.escape(piece)
        elif piece.field is None:
            expression += r"\d+" if piece.name == "#" else r"\d+\.\d+"
        else:
            places.append(piece)
            kind = item_kind(piece.field.kind)
            expression += r"((?: \S+)*)" if piece.each else r"(\S+)" if piece.is_list or kind is None else pattern(kind)
    return expression, tuple(places)


def _values(places: tuple[Place, ...], groups: tuple[str, ...]) -> dict[str, object]:
    return {place.attribute: _value(place, text) for place, text in zip(places, groups, strict=True)}


def _value(place: Place, text: str) -> object:
    kind = item_kind(place.field.kind)
    if kind is None:  # records
        section = place.field.kind.of
        record = record_of(section)
        expression, places = _expression(record, record.text, "")
        return tuple(make(class_of(section, ""), _values(places, _match(expression, t))) for t in text.split())
    if place.each:
        return tuple(parsed(kind, _match(pattern(kind), t)[0]) for t in text.split())
    if place.is_list:
        empty = place.part is None and text == NO_ITEMS
        return () if empty else tuple(parsed(kind, _match(pattern(kind), t)[0]) for t in text.split(","))
    return parsed(kind, text)


def _match(expression: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(expression, text)
    if found is None:
        raise ValueError(f"{text} has another form")
    return found.groups()
