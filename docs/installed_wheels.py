"""What `make wheels` builds, for this machine, and this environment's packages beside it: a new user's environment
without a download."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

from docs.figures import ROOT


def distributions_script() -> ModuleType:
    """runtime_c/package/distributions.py, which lies beside what it packs."""
    spec = importlib.util.spec_from_file_location("distributions", ROOT / "runtime_c/package/distributions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheels(clone: Path) -> Path:
    """A folder in place of the clone: build/wheels and what its pages name. Compiles libvlart."""
    distributions = distributions_script()
    out, processor = clone / "build" / "wheels", os.uname().machine
    native = distributions.compile_native(clone / "native", processor)
    for project, given in (("vlart", (processor, native)), (".", ()), ("integrations/lerobot", ())):
        distributions.wheel(project, out, *given)
    distributions.tarball(out, processor, native)
    shutil.rmtree(clone / "native")
    for name in ("examples", "runtime_c"):
        (clone / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "integrations", clone / "integrations")  # pip writes beside what it installs from
    return clone


def linked_requirements(folder: Path) -> Path:
    """Links to what is installed in this environment but for what the wheels bring, and for pip's own."""
    folder.mkdir()
    for package in ("torch", "cyclonedds", "rosbags"):  # of each folder that packages are installed in
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for entry in Path(spec.origin).parents[1].iterdir():
            if not entry.name.startswith(("vlacompile", "__editable__", "pip")) and \
                    not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder
