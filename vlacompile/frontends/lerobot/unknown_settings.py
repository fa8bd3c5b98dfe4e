"""Fields of config.json and settings of processor steps that the LeRobot which is here does not have.

A newer LeRobot, or another version of a plugin, wrote them and computes something by them. LeRobot's own message is a
dump of a parser; here the field is named. Needs LeRobot.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from importlib.metadata import version

from vlacompile.frontends.lerobot.checkpoint import Checkpoint
from vlacompile.frontends.lerobot.files import POSTPROCESSOR, PREPROCESSOR, read_json
from vlart.errors import SourceError, nearest


def require_known_settings(checkpoint: Checkpoint, settings: dict) -> None:
    """settings: the fields of config.json that will be read. Raises SourceError."""
    importlib.import_module("lerobot.policies")
    config = _config_class(checkpoint.type)
    if config is None:
        return
    _import_processors(config)
    known = {f.name for f in dataclasses.fields(config)} | {"type"}
    for name, value in settings.items():
        if name not in known:
            raise SourceError(
                f'config.json has the field "{name}", which {_code(config)} does not',
                where=f"{checkpoint.path / 'config.json'}: {name} = {value!r}"[:200],
                why=f"a version that knows it may compute other actions by it; {nearest(name, known)}",
                fix="build where the version that wrote the checkpoint is installed; remove the field only if the "
                    "policy was trained with its default")
    for file in (PREPROCESSOR, POSTPROCESSOR):
        if (checkpoint.path / file).is_file():
            for step in read_json(checkpoint.path / file)["steps"]:
                _require_known_step(checkpoint, file, step)


def _config_class(kind: str) -> type | None:
    from lerobot.configs.policies import PreTrainedConfig

    return PreTrainedConfig.get_known_choices().get(kind)


def _import_processors(config: type) -> None:
    """They register their steps. A plugin need not have such a module: LeRobot's own steps may be all that it uses."""
    name = config.__module__.replace("configuration_", "processor_")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise


def _require_known_step(checkpoint: Checkpoint, file: str, step: dict) -> None:
    from lerobot.processor import ProcessorStepRegistry

    name, where = step.get("registry_name") or step.get("class"), str(checkpoint.path / file)
    try:
        if "registry_name" in step:
            kind = ProcessorStepRegistry.get(name)
        else:
            module, _, attribute = name.rpartition(".")
            kind = getattr(importlib.import_module(module), attribute)
    except (KeyError, ImportError, AttributeError) as error:
        raise SourceError(
            f'{file} has the step "{name}", which nobody registered', where=where,
            why=f"it would be left out of what the policy sees or the robot gets; LeRobot {version('lerobot')} and the "
                f"plugins that are installed beside it do not have it ({nearest(name, ProcessorStepRegistry.list())})",
            fix="install the plugin, or the version, that registers it, where LeRobot is") from error
    parameters = inspect.signature(kind).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for setting, value in step.get("config", {}).items():
        if setting not in parameters:
            raise SourceError(
                f'the step "{name}" has the setting "{setting}", which {_code(kind)} does not',
                where=f"{where}: {setting} = {value!r}"[:200],
                why=f"a version that knows it may compute other numbers by it; {nearest(setting, parameters)}",
                fix="build where the version that wrote the checkpoint is installed; remove the setting only if the "
                    "policy was trained with its default")


def _code(kind: type) -> str:
    package = kind.__module__.partition(".")[0]
    return f"LeRobot {version('lerobot')}" if package == "lerobot" else f"{package} here"
