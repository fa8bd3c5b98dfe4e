"""Names and shapes of a model's weights, compact: one line for what all layers have alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def compact(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """{"blocks.0.w": [2, 3], "blocks.1.w": [2, 3]} -> {"blocks.[0-1].w": [2, 3]}."""
    alike: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    out = {}
    for name, shape in shapes.items():
        found = re.search(r"\.(\d+)\.", name)
        if found is None:
            out[name] = list(shape)
        else:
            around = (name[: found.start() + 1], name[found.end() - 1:], tuple(shape))
            alike.setdefault(around, []).append(int(found[1]))
    for (before, after, shape), places in alike.items():
        out[f"{before}[{','.join(_ranges(sorted(places)))}]{after}"] = list(shape)
    return out


_NUMBER, _RANGES = re.compile(r"(?<=[._])(?:\d+|\[[\d,-]+\])(?=\.)"), re.compile(r"\[([\d,-]+)\]")


def packed(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """As `compact`, for every number in a name: {"a_0.b.0.w": [2], "a_0.b.1.w": [2], "a_1.b.0.w": [2], "a_1.b.1.w":
    [2]} -> {"a_[0-1].b.[0-1].w": [2]}. A number that is alone stays as it is."""
    found = {name: tuple(shape) for name, shape in shapes.items()}
    for i in range(max((len(_NUMBER.findall(name)) for name in found), default=0)):
        alike: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
        for name, shape in found.items():
            numbers = list(_NUMBER.finditer(name))
            before, number, after = (name, "", "") if i >= len(numbers) else (
                name[:numbers[i].start()], numbers[i][0], name[numbers[i].end():])
            alike.setdefault((before, after, shape), []).append(number)
        found = {}
        for (before, after, shape), places in alike.items():
            middle = places[0] if len(places) == 1 else f"[{','.join(_ranges(sorted(int(p) for p in places)))}]"
            found[f"{before}{middle}{after}"] = shape
    return {name: list(shape) for name, shape in found.items()}


def unpacked(rows: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {}
    for name, shape in rows.items():
        if (ranges := _RANGES.search(name)) is None:
            out[name] = tuple(shape)
            continue
        for run in ranges[1].split(","):
            first, _, last = run.partition("-")
            out |= unpacked({f"{name[:ranges.start()]}{i}{name[ranges.end():]}": shape
                             for i in range(int(first), int(last or first) + 1)})
    return out


def _ranges(places: list[int]) -> list[str]:
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs]
