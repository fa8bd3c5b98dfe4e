"""`vlart_layout.h`: the constants, enumerations and records of the layout in C; see generate.py."""

from __future__ import annotations

from vlart.bundle.format import layout
from vlart.bundle.format.record import C_TYPES, Record

GENERATED = "/* Generated from vlart/bundle/format by `python -m vlart.bundle.format.generate`. */"


def _constants() -> list[str]:
    rows = [
        ("FORMAT_MAJOR", f"{layout.FORMAT_MAJOR}u"),
        ("FORMAT_MINOR", f"{layout.FORMAT_MINOR}u"),
        ("RECORDING_MAJOR", f"{layout.RECORDING_MAJOR}u"),
        ("RECORDING_MINOR", f"{layout.RECORDING_MINOR}u"),
        ("PLAN_MAGIC", f'"{layout.PLAN_MAGIC.decode()}"'),
        ("FRAMES_MAGIC", f'"{layout.FRAMES_MAGIC.decode()}"'),
        ("ROUTING_MAGIC", f'"{layout.ROUTING_MAGIC.decode()}"'),
        ("TOKENIZER_MAGIC", f'"{layout.TOKENIZER_MAGIC.decode()}"'),
        ("LOCK_MAGIC", f'"{layout.LOCK_MAGIC.decode()}"'),
        ("RECORDING_MAGIC", f'"{layout.RECORDING_MAGIC.decode()}"'),
        ("ALIGN", f"{layout.ALIGN}u"),
        ("MAX_RANK", f"{layout.MAX_RANK}u"),
        ("NONE", f"0x{layout.NONE:08X}u"),
    ]
    return [f"#define VLART_{name} {value}" for name, value in rows]


def _enums() -> list[str]:
    out = []
    for enum, members in layout.ENUMS.items():
        body = ", ".join(f"VLART_{enum.upper()}_{k.upper()} = {v}" for k, v in members.items())
        out.append(f"enum {{ {body} }};")
    body = ", ".join(f"VLART_SECTION_{name.upper()} = {sid}" for sid, (name, _, _) in layout.SECTIONS.items())
    out.append(f"enum {{ {body} }};")
    return out


def _struct(record: Record) -> list[str]:
    out = [f"/* {record.doc} */", "typedef struct {"]
    for field in record.fields:
        array = f"[{field.count}]" if field.count > 1 else ""
        out.append(f"  {C_TYPES[field.base]} {field.name}{array}; /* {field.comment} */")
    name = f"vlart_{record.name}_record_t"
    out += [f"}} {name};", f'static_assert(sizeof({name}) == {record.size}, "layout of {record.name}");', ""]
    return out


def _strides() -> list[str]:
    rows = [f"  X({name.upper()}, " + (f"{raw}u" if record is None else f"sizeof(vlart_{record.name}_record_t)") + ")"
            for name, record, raw in layout.SECTIONS.values()]
    comment = "/* X(section, bytes of one record) of every section. */"
    return [comment, "#define VLART_SECTIONS(X) \\", " \\\n".join(rows), ""]


def c_header() -> str:
    lines = [
        GENERATED,
        "#ifndef VLART_LAYOUT_H",
        "#define VLART_LAYOUT_H",
        "",
        "#include <assert.h>",
        "#include <stdint.h>",
        "",
        "/* Little-endian records of every binary file of a bundle. String fields are byte offsets into the",
        "   strings section; X_begin and X_count are a range of records in the section named beside them. */",
        "",
        *_constants(),
        "",
        *_enums(),
        "",
    ]
    for record in layout.RECORDS:
        lines += _struct(record)
    lines += _strides()
    lines += ["#endif", ""]
    return "\n".join(lines)

