"""What stands in a device for its programs and processors."""

from __future__ import annotations

from pathlib import Path

from tests.deploy import board as boards

VLART_RUN = """\
#!/bin/sh
case $1 in --help) exit 0 ;; esac
echo "self-test passed: 1 values in 1 frames"
"""
VLART_BUILD = """\
#!/bin/sh
mkdir -p "$1/engines"
for engine in fusion vision; do
  if [ -f "$1/engines/$engine.plan" ]; then echo "$engine: kept"; continue; fi
  echo "$engine: building"
  if [ "$engine" = vision ] && [ -f "$HOME/slow" ]; then echo $$ >"$HOME/pid"; exec sleep 60; fi
  echo "$engine" >"$1/engines/$engine.plan"
done
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def answering(fresh, arch: str):
    """The device says that its processor is this one."""
    return executable(fresh.sshd.path / "uname", f"#!/bin/sh\necho {arch}\n")


def aarch64(path: Path) -> Path:
    """A file that says it is for aarch64."""
    elf = bytearray((boards.RUNTIME / "vlart-run").read_bytes()[:64])
    elf[18:20] = (183).to_bytes(2, "little")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(elf)
    return path
