"""Generates `vlart_layout.h` from `layout.py`: `python -m vlacompile.bundle.header > FILE`."""

from __future__ import annotations

from vlacompile.bundle import layout


def _constants() -> list[str]:
    rows = [
        ("FORMAT_MAJOR", f"{layout.FORMAT_MAJOR}u"),
        ("FORMAT_MINOR", f"{layout.FORMAT_MINOR}u"),
        ("PLAN_MAGIC", f'"{layout.PLAN_MAGIC.decode()}"'),
        ("FRAMES_MAGIC", f'"{layout.FRAMES_MAGIC.decode()}"'),
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


def _struct(record: layout.Record) -> list[str]:
    out = [f"/* {record.doc} */", "typedef struct {"]
    for field in record.fields:
        array = f"[{field.count}]" if field.count > 1 else ""
        out.append(f"  {layout.c_type(field)} {field.name}{array}; /* {field.doc} */")
    name = f"vlart_{record.name}_record_t"
    out += [f"}} {name};", f'static_assert(sizeof({name}) == {record.size}, "layout of {record.name}");', ""]
    return out


def c_header() -> str:
    lines = [
        "/* Generated from vlacompile/bundle/layout.py by `python -m vlacompile.bundle.header`. Do not edit. */",
        "#ifndef VLART_LAYOUT_H",
        "#define VLART_LAYOUT_H",
        "",
        "#include <assert.h>",
        "#include <stdint.h>",
        "",
        "/* Little-endian records of plan.bin and of frames files. String fields are byte offsets into the",
        "   strings section; X_begin and X_count are a range of records in the section named beside them. */",
        "",
        *_constants(),
        "",
        *_enums(),
        "",
    ]
    for record in layout.RECORDS:
        lines += _struct(record)
    lines += ["#endif", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(c_header(), end="")
