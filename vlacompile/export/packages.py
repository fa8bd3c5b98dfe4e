"""The packages that exports are written with, and how they are installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from vlart.errors import ConfigError


def require(module: str, extra: str, option: str) -> ModuleType:
    """Imports a module of one of vlacompile's extras. Raises ConfigError."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{option} needs a package that is not here", where=option, why=str(error),
                          fix=f"pip install 'vlacompile[{extra}]'") from error
