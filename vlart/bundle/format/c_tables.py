"""The kinds of the fields and the lines of plan.txt as tables in C; see generate.py.

`record_fields.c` is what `runtime_c/src/container` checks records by; `plan_text_lines.c` what vlart-dump prints.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlart.bundle.format import layout
from vlart.bundle.format.header import GENERATED
from vlart.bundle.format.plan_lines import PLAN_LINES, Lines
from vlart.bundle.format.record import Bits, Count, Enum, Field, Index, Owner, Record, Span
from vlart.bundle.format.template import Place, pieces


def record_fields() -> str:
    lines = [GENERATED, '#include "container/record_fields.h"', "", "#include <stddef.h>", ""]
    used = {f.kind.of for record in _records().values() for f in record.fields if isinstance(f.kind, (Enum, Bits))}
    for enum, members in layout.ENUMS.items():
        if enum in used:
            rows = [f'  {{VLART_{enum.upper()}_{m.upper()}, "{m}"}},' for m in members]
            lines += [f"static const vlart_member_t {enum}_members[] = {{", *rows, "};",
                      f"static const vlart_enum_t {enum}_enum = {{{enum}_members, {len(members)}}};"]
    for name, record in _records().items():
        rows = [_field(record, f) for f in record.fields if not isinstance(f.kind, Count)]
        lines += ["", f"static const vlart_field_t {name}_fields[] = {{", *rows, "};"]
    lines += ["", "const vlart_fields_t vlart_record_fields[VLART_SECTION_ID_LIMIT] = {"]
    lines += [f'  [VLART_SECTION_{name.upper()}] = {{"{name}", {name}_fields, {_length(f"{name}_fields")}}},'
              for name in _records()]
    return "\n".join([*lines, "};", ""])


def _length(array: str) -> str:
    return f"sizeof {array} / sizeof {array}[0]"


def _records() -> dict[str, Record]:
    return {name: record for name, record, _ in layout.SECTIONS.values() if record is not None}


def _field(record: Record, f: Field) -> str:
    kind = f.kind
    rows = [f'.name = "{f.key}"', f".kind = VLART_KIND_{type(kind).__name__.upper()}",
            f".type = VLART_TYPE_{f.base.upper()}", f".offset = offsetof(vlart_{record.name}_record_t, {f.name})"]
    if getattr(kind, "optional", False):
        rows.append(".optional = true")
    if isinstance(kind, (Index, Span)):
        rows.append(f".section = VLART_SECTION_{kind.of.upper()}")
    if isinstance(kind, Span) and kind.items:
        rows.append(f".items = VLART_SECTION_{kind.items.upper()}")
    if isinstance(kind, Index) and kind.within:
        rows.append(f'.within = "{kind.within}"')
    if isinstance(kind, (Enum, Bits)):
        rows.append(f".of = &{kind.of}_enum")
    if isinstance(kind, Enum) and kind.later:
        rows.append(".later = true")
    return f"  {{{', '.join(rows)}}},"


def plan_text_lines() -> str:
    lines = [GENERATED, '#include "plan_text_lines.h"', ""]
    items, texts, tables = {}, [], []
    root = _table(PLAN_LINES, "plan_lines", texts, tables, items)
    lines += texts + [""] + tables
    lines += [f"const uint32_t plan_line_count = {_length(root)};", "",
              "const char *const plan_item_texts[VLART_SECTION_ID_LIMIT] = {"]
    lines += [f'  [VLART_SECTION_{section.upper()}] = "{text}",' for section, text in items.items()]
    return "\n".join([*lines, "};", ""])


def _table(nodes: tuple[Lines, ...], name: str, texts: list[str], tables: list[str], items: dict[str, str]) -> str:
    """Appends the arrays that the lines need before their own; returns its name."""
    rows = []
    for i, node in enumerate(nodes):
        record, own = _records()[node.section], f"{name}_{i}"
        by = "" if node.text else record.by
        forms = record.text if by else {"": node.text or record.text}
        quoted = {m: f'"{_c_text(record, t, m, items)}"' if t else "NULL" for m, t in forms.items()}
        members = [f"[VLART_{record.keyed[by].kind.of.upper()}_{m.upper()}] = {t}" if by else t
                   for m, t in quoted.items()]
        texts.append(f"static const char *const {own}_texts[] = {{{', '.join(members)}}};")
        row = [f".section = VLART_SECTION_{node.section.upper()}", f".texts = {own}_texts",
               f".of = {_found(node, record)}"]
        row += [f'.{key} = "{value}"' for key, value in (("lead", node.lead), ("by", by), ("when", node.when)) if value]
        if node.of not in ("", "self"):
            row.append(f'.field = "{node.of}"')
        if node.lines:
            below = _table(node.lines, f"{own}_lines", texts, tables, items)
            row += [f".lines = {below}", f".line_count = {_length(below)}"]
        rows.append(f"  {{{', '.join(row)}}},")
    kind = "" if name == "plan_lines" else "static "
    tables += [f"{kind}const plan_line_t {name}[] = {{", *rows, "};", ""]
    return name


def _found(node: Lines, record: Record) -> str:
    own = record.keyed.get(node.of)
    return "PLAN_LINE_" + ("EVERY" if not node.of else "SELF" if node.of == "self" else
                           "OWNED" if own and isinstance(own.kind, Owner) else "SPAN")


def _c_text(record: Record, text: str, member: str, items: dict[str, str]) -> str:
    """A text with {span[i/n]} for parts of a span."""
    return "".join(_c_pieces(record, text, member, items))


def _c_pieces(record: Record, text: str, member: str, items: dict[str, str]) -> Iterator[str]:
    for piece in pieces(record, text, member):
        if isinstance(piece, Place) and piece.part:
            yield f"{{{piece.field.key}[{piece.i}/{piece.n}]}}"
        elif isinstance(piece, Place):
            of = getattr(piece.field and piece.field.kind, "of", "")
            if piece.each and of in _records():
                items[of] = _c_text(_records()[of], _records()[of].text, "", items)
            yield f"{{{'*' * piece.each}{piece.name}}}"
        else:
            yield piece
