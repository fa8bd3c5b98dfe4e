"""An extension of griffe, which reads docstrings for the API pages: where a docstring explains parameters as
"name: words. other: words.", each becomes an item of a list, because Markdown would run them together."""

from __future__ import annotations

import re

import griffe


class DocstringLists(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **_) -> None:
        named = {p.name for p in cls.parameters}
        _itemise(cls, named | {n for n, m in cls.members.items() if m.is_attribute})

    def on_function(self, *, func: griffe.Function, **_) -> None:
        _itemise(func, {p.name for p in func.parameters})


def _itemise(found: griffe.Object, names: set[str]) -> None:
    if found.docstring is None or not (names := names - {"self"}):
        return
    one = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    begins = re.compile(rf"(?:^|(?<=[.;)] )|(?<=\n))((?:{one})(?:, (?:{one}))*): ")
    found.docstring.value = "\n\n".join(_paragraph(p, begins) for p in found.docstring.value.split("\n\n"))


def _paragraph(text: str, begins: re.Pattern) -> str:
    if not begins.search(text) or text.startswith((" ", "-")):
        return text
    flat = re.sub(r"\n\s*", "\n", text)
    lead, *rest = begins.split(flat)  # words before, then names and words in turn
    items = [f"- **{names}**: {' '.join(words.split())}" for names, words in zip(rest[::2], rest[1::2], strict=True)]
    items[-1], _, after = items[-1].partition(" Raises ")  # of the whole, not of the last name
    parts = [" ".join(lead.split()), "\n".join(items), f"Raises {after}" if after else ""]
    return "\n\n".join(part for part in parts if part)
