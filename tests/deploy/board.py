"""A device for the tests of `vlacompile flash`: the loopback sshd, bundles that differ, and what must hold after a
fault."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.deploy.sshd import Sshd
from vlacompile.cli.main import main
from vlart.bundle.directory import (
    GOLDEN_FILE,
    WEIGHTS_FILE,
    Bundle,
    read_bundle,
    stage_path,
    with_files,
    write_bundle,
)
from vlart.verify.frames import Expected, frames_bytes, read_frames

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "build" / "runtime_c"
TRAVELS = "(the library travels along)"  # for Board.argv: no --ort
BALLAST = 3 << 20  # bytes of a file that no two bundles share
# A tool of the device that kills the shell which calls it, or does what FOLDER/act says, at the N-th call in one step,
# before or after it has worked.
DEADLY = """\
#!/bin/sh
tool=${0##*/}
if [ -f FOLDER/fault ]; then
  read -r step name nth moment <FOLDER/fault
  if [ "$STEP $tool" = "$step $name" ]; then
    echo >>FOLDER/calls
    if [ "$(wc -l <FOLDER/calls)" -eq "$nth" ]; then
      [ "$moment" = before ] || /usr/bin/$tool "$@"
      echo >FOLDER/struck
      if [ ! -f FOLDER/act ]; then
        kill -9 $PPID
        exit
      fi
      . FOLDER/act
      [ "$moment" = before ] || exit 0
    fi
  fi
fi
exec /usr/bin/$tool "$@"
"""
TOOLS = ("chmod", "comm", "cp", "date", "ln", "mkdir", "mv", "readlink", "rm", "sha256sum", "ssh-keygen", "sync",
         "tail")


@dataclass(frozen=True)
class Board:
    sshd: Sshd
    ort: str

    @property
    def root(self) -> Path:
        return self.sshd.home / ".local" / "share" / "vlacompile"

    @property
    def policy(self) -> Path:
        return self.root / "policies" / "late_fusion"

    def argv(self, bundle: Bundle | Path, *more: str) -> list[str]:
        path = bundle.path if isinstance(bundle, Bundle) else bundle
        words = ["flash", str(path), *more] if "--fleet" in more else ["flash", str(path), "board", *more]
        own = [] if "--ort" in more or "--ort-library" in more or TRAVELS in more else ["--ort", self.ort]
        return [*[w for w in words if w != TRAVELS], "--ssh-config", str(self.sshd.config), *own]

    def flash(self, bundle: Bundle | Path, *more: str) -> int:
        """The exit code."""
        return main(self.argv(bundle, *more))

    def flash_apart(self, bundle: Bundle, *more: str, path: Path | None = None) -> subprocess.Popen:
        """In a process of its own, that may be killed, and that Ctrl-C ends also where the tests run in the background,
        which ignores it. path: a folder that its PATH begins with."""
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
        command = ["env", "--default-signal=INT", sys.executable, "-m", "vlacompile.cli.main"]
        return subprocess.Popen([*command, *self.argv(bundle, *more)], cwd=ROOT, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def enroll(self, signers: Path, *more: str) -> int:
        """The exit code."""
        return main(["device", "enroll", "board", "--signers", str(signers), "--ssh-config", str(self.sshd.config),
                     *more])

    def roll_back(self) -> int:
        return main(["flash", "--rollback", "board", "--ssh-config", str(self.sshd.config)])

    def runs(self) -> str:
        """The hash of the bundle that is current, after proving that it is whole and passes its self-test."""
        slot = self.policy / "current"
        assert str(slot.readlink()) in ("slots/a", "slots/b") and (slot / "passed").is_file()
        done = subprocess.run([slot / "bin" / "vlart-run", slot / "bundle.vlab", "--self-test", "--ort", self.ort],
                              env={"HOME": str(self.sshd.home)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return read_bundle(slot / "bundle.vlab").hash

    def arrived_in_part(self) -> int:
        """Bytes of partial files, once the step that a killed workstation left behind has ended."""
        for _ in range(100):
            if parts := list((self.root / "store").glob("*.part")):
                with (self.root / "busy").open() as busy:
                    fcntl.flock(busy, fcntl.LOCK_EX)
                return sum(p.stat().st_size for p in parts)
            time.sleep(0.1)
        return 0

    def strike(self, step: str, tool: str, nth: int = 1, moment: str = "before", act: str = "") -> None:
        """From now on, until calm(). act: what happens then, in sh; nothing: the shell that calls it is killed."""
        self.calm()
        if act:
            (self.sshd.folder / "act").write_text(act + "\n")
        for name in TOOLS:
            shim = self.sshd.path / name
            if not shim.exists():
                shim.write_text(DEADLY.replace("FOLDER", str(self.sshd.folder)))
                shim.chmod(0o755)
        (self.sshd.folder / "fault").write_text(f"{step} {tool} {nth} {moment}\n")

    @property
    def struck(self) -> bool:
        return (self.sshd.folder / "struck").exists()

    def calm(self) -> None:
        for name in ("fault", "calls", "struck", "act"):
            (self.sshd.folder / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """As a device that was never flashed."""
        self.calm()
        shutil.rmtree(self.root, ignore_errors=True)


def variant(bundle: Bundle, out: Path, number: int) -> Bundle:
    """The same policy with other bytes: a file of its own beside the stages."""
    return _rewritten(bundle, out, {"stages/ballast.bin": np.random.default_rng(number).bytes(BALLAST)})


def lying(bundle: Bundle, out: Path) -> Bundle:
    """Whole, but its golden frames expect what the policy does not compute."""
    frames = [replace(f, expects={n: Expected(e.array + 1, e.limit) for n, e in f.expects.items()})
              for f in read_frames(bundle.path / GOLDEN_FILE)]
    return _rewritten(bundle, out, {GOLDEN_FILE: frames_bytes(frames)})


def for_target(bundle: Bundle, out: Path, target: str, backend: str = "onnxruntime") -> Bundle:
    plan = replace(bundle.plan, target=target, stages=tuple(replace(s, backend=backend) for s in bundle.plan.stages))
    return _rewritten(replace(bundle, plan=plan), out, {})


def machine_code(bundle: Bundle, out: Path) -> Bundle:
    """Its stages are TVM's, by the plan; the files are no libraries."""
    stages = tuple(replace(s, backend="tvm", initializers=()) for s in bundle.plan.stages)
    files = {stage_path(s.name, "tvm"): b"no library" for s in stages}
    files |= {f: (bundle.path / f).read_bytes() for f in (WEIGHTS_FILE, GOLDEN_FILE)}
    plan = with_files(replace(bundle.plan, stages=stages, files=()), files)
    return write_bundle(out, plan, files, bundle.manifest["provenance"], lambda path: None)


def _rewritten(bundle: Bundle, out: Path, changed: dict[str, bytes]) -> Bundle:
    contents = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    files = contents | changed
    return write_bundle(out, with_files(bundle.plan, files), files, bundle.manifest["provenance"], lambda path: None)
