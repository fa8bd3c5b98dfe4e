"""Policy types that LeRobot knows: those that it ships, and those that plugins register when they are imported.

LeRobot imports every installed distribution whose name begins with lerobot_policy_; so does this module. It needs
LeRobot; `python -m vlacompile.frontends.lerobot.registered_types` prints the same for another interpreter.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from vlacompile.frontends.environments import ENVIRONMENTS, NeedsEnvironment
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlart.errors import SourceError, nearest

OURS = ENVIRONMENTS["lerobot061"]
PLUGIN = "lerobot_policy_"  # how the names of such distributions begin


@dataclass(frozen=True)
class Registered:
    """types: {policy type: module of its configuration}. failed: {plugin: why it cannot be imported}."""

    types: dict[str, str]
    failed: dict[str, str]

    @property
    def plugins(self) -> dict[str, str]:
        """The types that LeRobot does not ship."""
        return {name: module for name, module in self.types.items() if module.partition(".")[0] != "lerobot"}


def registered() -> Registered:
    """Of the environment that builds, which is asked if it is not this one. Raises SourceError."""
    return _here() if OURS.is_here() else _of(OURS.python)


@functools.cache
def _here() -> Registered:
    with lerobot_importable():
        from lerobot.configs.policies import PreTrainedConfig

        importlib.import_module("lerobot.policies")  # registers what LeRobot ships
        failed = {}
        for name in plugin_names():
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin's code raises anything
                failed[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        types = {name: kind.__module__ for name, kind in PreTrainedConfig.get_known_choices().items()
                 if kind.__module__.partition(".")[0] not in failed}  # it may have registered before it failed
    return Registered(types, failed)


def plugin_names() -> list[str]:
    """Modules of the installed plugins. A distribution may be named with dashes, its module is not."""
    names = (d.metadata.get("Name") or "" for d in importlib.metadata.distributions())
    return sorted({n for n in (re.sub(r"[-.]", "_", name) for name in names) if n.lower().startswith(PLUGIN)})


@functools.cache
def _of(python: Path) -> Registered:
    done = subprocess.run([python, "-W", "ignore", "-m", __name__], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SourceError("LeRobot cannot be asked for its policy types", where=str(python),
                          why=(done.stderr.strip().splitlines() or ["it failed"])[-1],
                          fix=f"create it again: vlacompile frontends --install {OURS.name}")
    return Registered(**json.loads(done.stdout.splitlines()[-1]))


def require_registered(path: Path, kind: str) -> None:
    """Raises SourceError for a type that neither LeRobot nor an installed plugin registers, as far as is known here."""
    what, where = f'no frontend reads checkpoints of type "{kind}"', str(path / "config.json")
    if not (OURS.is_here() or OURS.is_installed()):
        raise NeedsEnvironment(OURS, f"{what} here", where=where,
                               why=f"LeRobot {OURS.version}, which may ship it or have a plugin for it, is not "
                                   "installed",
                               fix=f"{OURS.advice()}; --also PACKAGE installs the plugin with it")
    found = registered()
    if kind in found.types:
        return
    plugins = ", ".join(found.plugins) or "none"
    known = f"neither LeRobot {OURS.version} nor a plugin that is installed beside it ({plugins}) registers it"
    failed = "".join(f"; the plugin {name} cannot be imported: {why}" for name, why in found.failed.items())
    raise SourceError(what, where=where,
                      why=f"{known}{failed}; {nearest(kind, found.types)}",
                      fix="install the plugin that registers it, with what its import lacks, where LeRobot is: "
                          f"vlacompile frontends --install {OURS.name} --also PACKAGE")


if __name__ == "__main__":
    print(json.dumps(asdict(registered())))
