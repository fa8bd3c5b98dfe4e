"""Plan <-> text. `parse(print(plan)) == plan`; `vlart-dump` prints the same lines from plan.bin.

The lines and what stands on them: `bundle/format/plan_lines.py` and the texts of the records.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlart.bundle.format import layout
from vlart.bundle.format.plan_lines import PLAN_LINES, Lines
from vlart.bundle.format.record import Owner, Record
from vlart.bundle.format.template import Place, pieces
from vlart.bundle.plan.field_text import NO_ITEMS, item_kind, word
from vlart.bundle.plan.line_parser import LineParser
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.record_types import ONE, TABLES, attribute, class_of, items_at, make, member_of, record_of
from vlart.errors import BundleError


def plan_text(plan: Plan) -> str:
    return "".join(f"{line}\n" for line in _printed(PLAN_LINES, plan, plan, "policy"))


def _printed(nodes: tuple[Lines, ...], plan: Plan, parent: object, section: str) -> Iterator[str]:
    for node in nodes:
        record = record_of(node.section)
        for number, item in enumerate(_items(node, plan, parent, section)):
            member = "" if node.text else member_of(node.section, item)
            there = not node.when or attribute(item, record.keyed[node.when].attribute) not in (None, ())
            text = node.text or (record.text[member] if record.by else record.text)
            if there and text:
                yield node.lead + _filled(record, text, member, item, number)
                yield from _printed(node.lines, plan, item, node.section)


def _items(node: Lines, plan: Plan, parent: object, section: str) -> tuple:
    """What a line is printed for: the objects behind its records. section: of the parent."""
    if node.of == "self":
        return (parent,)
    if not node.of:
        return (plan,) if node.section == "policy" else items_at(plan, node.section)
    own = record_of(node.section).keyed.get(node.of)
    where = own if own and isinstance(own.kind, Owner) else record_of(section).keyed[node.of]
    found = attribute(parent, where.attribute)
    return found if isinstance(found, tuple) else () if found is None else (found,)


def _filled(record: Record, text: str, member: str, item: object, number: int) -> str:
    return "".join(p if isinstance(p, str) else _place(p, item, number) for p in pieces(record, text, member))


def _place(place: Place, item: object, number: int) -> str:
    if place.field is None:
        return str(number) if place.name == "#" else f"{layout.FORMAT_MAJOR}.{layout.FORMAT_MINOR}"
    value, kind = attribute(item, place.attribute), item_kind(place.field.kind)
    if kind is None:  # records
        record = record_of(place.field.kind.of)
        return "".join(" " + _filled(record, record.text, "", x, 0) for x in value)
    if place.each:
        return "".join(f" {word(kind, x)}" for x in value)
    if isinstance(value, tuple) and place.is_list:
        return ",".join(word(kind, x) for x in value) or NO_ITEMS
    return word(kind, value)


_PARSER = LineParser(PLAN_LINES)


def parse_plan(text: str) -> Plan:
    """Read a plan back. Raises BundleError with the line."""
    plan: dict[str, object] = {"action": None}
    tables: dict[str, list[tuple[str, dict]]] = {section: [] for section in TABLES}
    above: dict[Lines, dict] = {}  # the last of every line that others stand below
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        node, parent, member, values = _PARSER.read(line, number)
        if parent is not None and parent not in above:
            _PARSER.refuse(line, number, "the line that it belongs to is missing")
        if node.section == "policy":
            plan |= values
            values = plan
        elif node.of == "self":
            above[parent] |= values
        elif node.of:
            _keep(node, parent, above[parent], make(class_of(node.section, member), values))
        else:
            values = {**_empty(node), **values}
            tables[node.section].append((member, values))
        if node.lines:
            above[node] = values
    made = {section: tuple(make(class_of(section, member), values) for member, values in rows)
            for section, rows in tables.items()}
    plan |= {where: made[section][0] if section in ONE else made[section]
             for section, where in TABLES.items() if made[section] or section not in ONE}
    if "action.value" in plan:
        del plan["action"]
    else:
        plan = {k: v for k, v in plan.items() if not k.startswith("action.")}
    return _whole(plan)


def _empty(node: Lines) -> dict[str, tuple]:
    """The spans of a record of which the lines below this one say what they hold."""
    fields = record_of(node.section).keyed
    return {fields[line.of].attribute: () for line in node.lines if line.of in fields}


def _keep(node: Lines, parent: Lines, values: dict, item: object) -> None:
    """Puts what a line below another one says where the object of that one has it."""
    own = record_of(node.section).keyed.get(node.of)
    if own and isinstance(own.kind, Owner):
        values[own.attribute] = (*values.get(own.attribute, ()), item) if own.kind.many else item
    else:
        where = record_of(parent.section).keyed[node.of].attribute
        values[where] = (*values[where], item)


def _whole(values: dict[str, object]) -> Plan:
    missing = {"name": "plan", "arena_bytes": "arena"}
    for name, line in missing.items():
        if name not in values:
            raise BundleError("not the text of a plan", where="the first lines", why=f'there is no "{line}" line',
                              fix="print the plan anew with `vlacompile inspect --plan`")
    return make(Plan, values)
