"""What `make wheels` builds, looked at and executed: `python -m docs.distributions`.

Every file is built into a temporary folder; its size is taken, the platform asked of auditwheel, the newest glibc read
from its ELF files. Then it is run as far as this machine can: without a network, wheels in an empty environment beside
what they require, archives unpacked, programs of the other processor under qemu. Writes
profiles/host/distributions.json, from which docs/install.md has its table; a run that fails records nothing.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import emulator
from docs.figures import MISSING, ROOT, figures_of, table
from docs.installed_wheels import distributions_script, linked_requirements
from vlacompile.profile import machine
from vlart.files.atomic import write_file
from vlart.runtime.library import onnxruntime_library

FIGURES = "profiles/host/distributions.json"
NATIVE = ("libvlart.so", "vlart-run", "vlart-dump", "vlart-build")
HERE = platform.machine()
SESSION = """
import sys, vlart
from vlart.verify.replay import verify
assert vlart.__file__.startswith(sys.prefix), vlart.__file__
assert verify(sys.argv[1], threads=1).passed
assert not {"torch", "onnx", "onnxscript", "vlacompile"} & set(sys.modules)
"""
PLUGIN = """
import sys
from vlacompile.frontends.lerobot.importing import lerobot_importable
with lerobot_importable():
    import vlart, lerobot_policy_vlacompile
    from lerobot.configs.policies import PreTrainedConfig
assert all(m.__file__.startswith(sys.argv[1]) for m in (vlart, lerobot_policy_vlacompile))
assert "vlab" in PreTrainedConfig.get_known_choices()
"""


def unpack(path: Path, folder: Path) -> list[Path]:
    """The files of a wheel or an archive; executable where they were."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for entry in wheel.infolist():
                Path(wheel.extract(entry, folder)).chmod((entry.external_attr >> 16) & 0o777 or 0o644)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return [p for p in folder.rglob("*") if p.is_file()]


def described(path: Path, scratch: Path) -> dict:
    """Size in MB as it is and unpacked, platform by auditwheel and newest glibc; None where it holds no ELF file."""
    files = unpack(path, scratch)
    newest = max((distributions_script().newest_glibc(p) for p in files if p.name in NATIVE), default=None)
    tag = None
    if newest and path.suffix == ".whl":
        said = subprocess.run([sys.executable, "-m", "auditwheel", "show", str(path)], check=True, capture_output=True,
                              text=True).stdout
        tag = re.search(r'platform tag: "(\w+)"', " ".join(said.split()))[1]
    return {"file": path.name, "megabytes": round(path.stat().st_size / 2**20, 2), "auditwheel": tag,
            "unpacked_megabytes": round(sum(p.stat().st_size for p in files) / 2**20, 2),
            "glibc": newest and ".".join(map(str, newest))}


def executed(path: Path, folder: Path, bundle: Path, scratch: Path) -> list[dict]:
    """The ways in which a file of `folder` was run here: {where, what}. Raises CalledProcessError where one fails."""
    scratch.mkdir()
    name = path.name
    if not name.endswith((f"_{HERE}.whl", f"-{HERE}.tar.gz", "-any.whl")):
        return _emulated(path, bundle, scratch)
    if path.suffix != ".whl":
        unpack(path, scratch)
        program, = scratch.glob("*/bin/vlart-run")
        _run(scratch, {}, program, bundle, "--self-test", "--threads", 1, "--ort", onnxruntime_library())
        return [{"where": _system(), "what": "vlart-run, self-test"}]
    run: dict[str, Callable[[Path, Path, Path], list[dict]]] = {
        "vlacompile_runtime": _runtime, "vlacompile": _compiler, "lerobot_policy_vlacompile": _plugin}
    runtime, = folder.glob(f"vlacompile_runtime-*_{HERE}.whl")
    return run[name.partition("-")[0]](_installed(scratch / "env", {path, runtime}), bundle, scratch)


def _runtime(programs: Path, bundle: Path, scratch: Path) -> list[dict]:
    beside = {"PYTHONPATH": str(linked_requirements(scratch / "site"))}
    _run(scratch, beside, programs / "python", "-c", SESSION, bundle)
    _run(scratch, beside, programs / "vlart-run", bundle, "--self-test", "--threads", 1)
    return [{"where": _system(python=True), "what": "a session verified; vlart-run, self-test"}]


def _compiler(programs: Path, bundle: Path, scratch: Path) -> list[dict]:
    (scratch / "pick.py").write_bytes((ROOT / "examples/first_hour/pick.py").read_bytes())
    beside = {"PYTHONPATH": f"{scratch}:{linked_requirements(scratch / 'site')}", "HOME": str(scratch)}
    for words in (("build", "pick:make", "-o", "pick.vlab"), ("verify", "pick.vlab")):
        _run(scratch, beside, programs / "vlacompile", *words)
    return [{"where": _system(python=True), "what": "build, verify"}]


def _plugin(programs: Path, bundle: Path, scratch: Path) -> list[dict]:
    from vlacompile.frontends.environments import ENVIRONMENTS

    lerobot = ENVIRONMENTS["lerobot061"]
    if not lerobot.is_installed():
        return []
    site, = (programs.parent / "lib").glob("python3*/site-packages")
    _run(scratch, {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "HOME": str(scratch)}, lerobot.python,
         "-c", PLUGIN, site)
    return [{"where": _system(python=True), "what": f"registered with LeRobot {lerobot.version}"}]


def _emulated(path: Path, bundle: Path, scratch: Path) -> list[dict]:
    if emulator.missing():
        return []
    programs = {p.name: p for p in unpack(path, scratch)}
    other = emulator.emulator(scratch / "emulator")
    done = other.run(programs["vlart-run"], bundle, "--self-test", "--ort", emulator.engine_library(), "--threads", "1")
    if done.returncode or "self-test passed" not in done.stdout:
        sys.exit(f"not recorded: {path.name} under qemu: {done.stderr.strip()}")
    return [{"where": f"qemu {other.version()}, {emulator.CPU}", "what": "vlart-run, self-test; no Python"}]


def _installed(folder: Path, wheels: set[Path]) -> Path:
    """The bin/ of a new environment that holds these wheels alone."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet",
                    "--disable-pip-version-check", "--no-index", "--no-deps", *map(str, sorted(wheels))], check=True)
    return folder / "bin"


def _run(folder: Path, more: dict[str, str], *words: object) -> str:
    """What a command printed, without a network where the kernel allows that."""
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    done = subprocess.run([*alone, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False,
                          env={"PATH": os.defpath, "HF_HUB_OFFLINE": "1", **more})
    if done.returncode:
        sys.exit(f"not recorded: {' '.join(map(str, words))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _system(python: bool = False) -> str:
    name = platform.freedesktop_os_release()["PRETTY_NAME"].split(" (")[0]
    return f"{HERE}, {name}" + (f", Python {platform.python_version()}" if python else "")


def distributions() -> str:
    """The table."""
    figures = figures_of(FIGURES)
    if not figures:
        return MISSING
    rows = [[f"`{f['file']}`", f"{f['megabytes']:.2f}", f"{f['unpacked_megabytes']:.2f}", f["auditwheel"] or "",
             f["glibc"] or "", "; ".join(f"{e['what']} ({e['where']})" for e in f["executed"]) or "not run"]
            for f in figures["files"]]
    return table(["file", "MB", "MB unpacked", "auditwheel", "glibc", "run"], rows,
                 "glibc: the newest version of a symbol that its libraries and programs ask for. Nothing here was run "
                 "on a board.")


def main() -> None:
    from tests.samples import policies
    from vlacompile import pipeline

    script = distributions_script()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        script.main(scratch / "wheels")
        bundle = pipeline.build(policies.late_fusion(), out=scratch / "late_fusion.vlab").path
        files = []
        for i, path in enumerate(sorted((scratch / "wheels").iterdir())):
            row = described(path, scratch / f"unpacked{i}")
            row["executed"] = executed(path, scratch / "wheels", bundle, scratch / f"run{i}")
            print(json.dumps(row), flush=True)
            files.append(row)
    write_file(ROOT / FIGURES, (json.dumps({"files": files, "machine": machine.describe()}, indent=1) + "\n").encode())

    from docs import render

    render.main()


if __name__ == "__main__":
    main()
