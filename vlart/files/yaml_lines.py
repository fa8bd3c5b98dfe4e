"""A YAML file as nested tables, and the line of every key in it.

Less than YAML: no aliases, no tags, no key twice, and a table at the top. Must not know what the keys mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlart.errors import ConfigError

MOST_BYTES = 1 << 18
DEEPEST = 16


@dataclass(frozen=True)
class LocatedTable:
    """table: of strings, numbers, booleans, lists and tables. lines: {key as "a.b": its line, from 1}."""

    path: Path
    table: dict[str, Any]
    lines: dict[str, int]

    def where(self, key: str) -> str:
        """The file and the line of a key, or of what it is in."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path}, line {self.lines[key]}" if key else str(self.path)


def read_yaml(path: str | Path) -> LocatedTable:
    """Raises ConfigError for what cannot be read or is more than this module's YAML."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError("the YAML file cannot be read", where=str(path), why=str(error),
                          fix="give the path of a YAML file in UTF-8") from error
    if len(data) > MOST_BYTES:
        raise ConfigError("the YAML file is too large", where=str(path), why=f"at most {MOST_BYTES} bytes are read",
                          fix="give a file of settings")
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> LocatedTable:
    """path: for the messages. Raises ConfigError."""
    try:
        import yaml
    except ImportError as error:
        raise ConfigError("the package PyYAML is missing", where=str(path), why="it reads YAML files",
                          fix="pip install 'vlacompile-runtime[ros]'; of a ROS 2 system, apt-get install python3-yaml",
                          ) from error

    lines: dict[str, int] = {}
    try:
        _require_plain(yaml.parse(text, Loader=yaml.SafeLoader), path, yaml)
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise ConfigError("the YAML file has no keys", where=str(path), why="its top is no table",
                                  fix="write `key: value` on its lines")
            table = _plain(root, "", path, lines, loader.construct_object)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError("the file is not valid YAML", where=str(path) + (f", line {mark.line + 1}" if mark else ""),
                          why=str(getattr(error, "problem", None) or error).partition("\n")[0],
                          fix="correct that line") from error
    return LocatedTable(path, table, lines)


def _require_plain(events: Any, path: Path, yaml: Any) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = f"{path}, line {event.start_mark.line + 1}"
        if depth > DEEPEST:
            raise ConfigError("the YAML file is nested too deeply", where=line, why=f"at most {DEEPEST} levels "
                              "are read", fix="give a file of settings")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) not in (None, "!"):
            raise ConfigError("the YAML file has an alias or a tag", where=line, why="they are not read",
                              fix="write the value itself")


def _plain(node: Any, key: str, path: Path, lines: dict[str, int], construct: Callable[[Any], Any]) -> Any:
    """A node's value; the keys below `key` go into `lines`."""
    if node.id == "sequence":
        return [_plain(item, key, path, lines, construct) for item in node.value]
    if node.id != "mapping":
        return construct(node)
    table = {}
    for name_node, value in node.value:
        line = name_node.start_mark.line + 1
        name = construct(name_node) if name_node.id == "scalar" else None
        if not isinstance(name, str):
            raise ConfigError(f"a key is {name!r}", where=f"{path}, line {line}", why="keys are names",
                              fix="put it into quotes")
        if name in table:
            raise ConfigError(f'"{name}" is there twice', where=f"{path}, line {line}",
                              why=f"it was given in line {lines[f'{key}.{name}' if key else name]}",
                              fix="keep one of them")
        inside = f"{key}.{name}" if key else name
        lines[inside] = line
        table[name] = _plain(value, inside, path, lines, construct)
    return table
