"""What C has of the layout: `python -m vlart.bundle.format.generate [RUNTIME_C]` writes it anew."""

from __future__ import annotations

import sys
from pathlib import Path

from vlart.bundle.format.c_tables import plan_text_lines, record_fields
from vlart.bundle.format.header import c_header
from vlart.files.atomic import write_whole

# {file in runtime_c: what makes it}. All are checked in.
FILES = {
    "include/vlart/vlart_layout.h": c_header,
    "src/container/record_fields.c": record_fields,
    "tools/plan_text_lines.c": plan_text_lines,
}


def main(root: Path) -> None:
    for name, make in FILES.items():
        write_whole(root / name, make().encode())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runtime_c"))
