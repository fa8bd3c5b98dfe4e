"""The structs of the public headers as ctypes: read off include/vlart/vlart*.h, so that no field is spelled again."""

from __future__ import annotations

import ctypes as c
import re
from pathlib import Path

INCLUDE = Path(__file__).parents[1] / "include" / "vlart"
SCALARS = {"char": c.c_char, "float": c.c_float, "double": c.c_double, "size_t": c.c_size_t, "uint8_t": c.c_uint8,
           "uint32_t": c.c_uint32, "int32_t": c.c_int32, "uint64_t": c.c_uint64, "int64_t": c.c_int64,
           "vlart_status_t": c.c_int}
POINTERS = {"char": c.c_char_p, "float": c.POINTER(c.c_float)}  # others: c_void_p


class Struct(c.Structure):
    """Sets struct_size by itself."""

    def __init__(self, **fields):
        super().__init__(struct_size=c.sizeof(type(self)), **fields)


def fields_of(struct: type[c.Structure]) -> list[tuple[str, int, int]]:
    """[(name, offset, bytes)]"""
    return [(name, getattr(struct, name).offset, getattr(struct, name).size) for name, *_ in struct._fields_]


def header_structs() -> dict[str, type[Struct]]:
    """{"vlart_diag_t": its struct} of every struct that begins with its own size."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(INCLUDE.glob("vlart*.h")))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    sizes = {name: int(number) for name, number in re.findall(r"#define (VLART_\w+) (\d+)u?\b", text)}
    return {name: type(name, (Struct,), {"_fields_": [_field(row, sizes) for row in body.split(";") if row.strip()]})
            for body, name in re.findall(r"typedef struct \{\s*(size_t struct_size;[^}]*)\} (\w+);", text)}


def _field(declaration: str, sizes: dict[str, int]) -> tuple[str, type]:
    words = re.fullmatch(r"\s*(?:const )?(\w+)\s+((?:\*\s*(?:const\s*)?)*)(\w+)(?:\[(\w+)\])?\s*", declaration)
    assert words is not None, f"no field of a struct: {declaration}"
    of, stars, name, count = words.groups()
    kind = SCALARS[of] if not stars else POINTERS.get(of, c.c_void_p) if stars.count("*") == 1 else c.c_void_p
    return name, kind if count is None else kind * (int(count) if count.isdigit() else sizes[count])
