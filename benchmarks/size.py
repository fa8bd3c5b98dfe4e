"""Bytes of code and of static data of libvlart, built for this machine and cross-compiled for aarch64.

    python -m benchmarks.size [--record]

Needs gcc; aarch64 needs aarch64-linux-gnu-gcc, and is left out without it. Writes build/bench/ (--record:
profiles/host/) size.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path

from vlacompile.profile import machine

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = {"host": "", "aarch64": "aarch64-linux-gnu-"}
PARTS = {"core": "obj/src", "ONNX Runtime": "obj/backends/onnxruntime", "TensorRT": "obj/backends/tensorrt",
         "TVM": "obj/backends/tvm"}
# Loaded sections: code with its linkage and unwinding tables; constants; initialised data; zero-initialised data.
CODE, CONSTANTS, DATA, ZEROS = (".text", ".init", ".fini", ".plt", ".plt.got",
                                ".plt.sec"), (".rodata",), (".data",), (".bss",)


def sections(path: Path, prefix: str) -> dict[str, int]:
    """{section: bytes}; sections of single functions and constants are added to the common ones."""
    text = subprocess.run([f"{prefix}size", "-A", str(path)], check=True, capture_output=True, text=True).stdout
    found: dict[str, int] = {}
    for name, size in re.findall(r"^(\.\S+)\s+(\d+)", text, re.MULTILINE):
        whole = next((w for w in (".text", ".rodata", ".bss") if name.startswith(f"{w}.")), name)
        found[whole] = found.get(whole, 0) + int(size)
    return found


def total(found: dict[str, int], names: tuple[str, ...]) -> int:
    return sum(found.get(n, 0) for n in names)


def measured(name: str, prefix: str) -> dict:
    build = ROOT / "build" / "size" / name
    subprocess.run(["make", "-s", "-C", str(ROOT / "runtime_c"), f"BUILD={build}", f"CROSS={prefix}",
                    str(build / "libvlart.so"), str(build / "libvlart.a")], check=True, stdout=subprocess.DEVNULL)
    library, bare = build / "libvlart.so", build / "stripped.so"
    shutil.copy(library, bare)
    subprocess.run([f"{prefix}strip", "--strip-unneeded", str(bare)], check=True)
    found = sections(library, prefix)
    compiler = subprocess.run([f"{prefix}gcc", "--version"], check=True, capture_output=True, text=True).stdout
    return {
        "configuration": name, "compiler": compiler.splitlines()[0], "flags": "-O2",
        "code": total(found, CODE), "constants": total(found, CONSTANTS), "data": total(found, DATA),
        "zeros": total(found, ZEROS), "file": bare.stat().st_size,
        "parts": {part: sum(total(sections(p, prefix), CODE + CONSTANTS) for p in sorted((build / folder).glob("*.o")))
                  for part, folder in PARTS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    arguments = parser.parse_args()
    rows = [measured(name, prefix) for name, prefix in CONFIGURATIONS.items() if shutil.which(f"{prefix}gcc")]
    for r in rows:
        print(f"{r['configuration']}: code {r['code']}, constants {r['constants']}, data {r['data']}, zeros "
              f"{r['zeros']}, "
              f"stripped file {r['file']} bytes; " + ", ".join(f"{p} {n}" for p, n in r["parts"].items()))
    out = ROOT / ("profiles/host" if arguments.record else "build/bench") / "size.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows, "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
