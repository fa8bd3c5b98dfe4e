"""Lets Python 3.11 import a package that is written with the type parameters of 3.12 (PEP 695).

Such a file does not compile; then its type parameters become the TypeVars that they abbreviate. Nothing of it changes
what the code computes. Goes when Python 3.11 does.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys

_ALIAS = re.compile(r"^type (\w+)(?:\[[^\]]*\])? = ", re.MULTILINE)
_CLASS = re.compile(r"^class (\w+)\[([^\]]+)\](?:\(([^)]*)\))?:", re.MULTILINE)
_FUNCTION = re.compile(r"^(\s*(?:async )?def \w+)\[([^\]]+)\]", re.MULTILINE)
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)


def readable(package: str) -> None:
    """From now on the modules of this package can be imported, if this Python lacks type parameters."""
    if sys.version_info < (3, 12) and not any(isinstance(f, _Finder) and f.package == package for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder(package))


def without_type_parameters(source: str) -> str:
    """Python 3.12 source -> the same for 3.11."""
    parameters = [m[2] for pattern in (_CLASS, _FUNCTION) for m in pattern.finditer(source)]
    names = sorted({name for listed in parameters for name in _names(listed)})
    source = _ALIAS.sub(r"\1 = ", source)
    source = _CLASS.sub(_generic_class, source)
    source = _FUNCTION.sub(r"\1", source)
    declared = "".join(f"{n} = _TypeVar({n!r}); " for n in names)
    head = f"from typing import Generic as _Generic, TypeVar as _TypeVar; {declared}" if names else ""
    futures = list(_FUTURE.finditer(source))
    end = futures[-1].end() if futures else 0
    return f"{source[:end]}; {head}{source[end:]}" if futures else head + ("\n" if head else "") + source


def _names(listed: str) -> list[str]:
    return [name.split(":")[0].strip() for name in listed.split(",")]


def _generic_class(match: re.Match) -> str:
    bases = [*filter(None, [match[3]]), f"_Generic[{', '.join(_names(match[2]))}]"]
    return f"class {match[1]}({', '.join(bases)}):"


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        try:
            return super().source_to_code(data, path, _optimize=_optimize)
        except SyntaxError:
            source = importlib.util.decode_source(data)
            return super().source_to_code(without_type_parameters(source).encode(), path, _optimize=_optimize)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] != self.package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return spec
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=_Loader(fullname, spec.origin),
                                                      submodule_search_locations=spec.submodule_search_locations)
