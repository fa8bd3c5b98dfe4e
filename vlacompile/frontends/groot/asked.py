"""What the files of a GR00T checkpoint leave to the one who builds it: which robot, and how large its frames are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.resize import Size
from vlart.errors import SourceError, nearest


def embodiment(where: Path, tags: Iterable[str], options: CheckpointOptions) -> str:
    """tags: of the robots in a file. Raises SourceError if one must be chosen, or another was."""
    known = sorted(tags)
    chosen = options.embodiment or (known[0] if len(known) == 1 else None)
    if chosen is None:
        raise SourceError("the checkpoint is for several robots", where=str(where),
                          why=f"it has {', '.join(known) or 'none'}; each has its own weights and statistics",
                          fix="build with --embodiment TAG")
    if chosen not in known:
        raise SourceError(f'the checkpoint has no embodiment "{chosen}"', where=str(where),
                          why=nearest(chosen, known), fix=f"--embodiment {known[0] if known else 'TAG'}, or another "
                                                          "that it has")
    return chosen


def frame_sizes(where: Path, cameras: Iterable[str], options: CheckpointOptions) -> dict[str, Size]:
    """{camera: (height, width)}, as asked: for all cameras, or for each. Raises SourceError."""
    names, found = list(cameras), {}
    for text in filter(None, (options.frame or "").split(",")):
        camera, _, size = text.rpartition("=")
        numbers = re.fullmatch(r"(\d+)x(\d+)", size)
        if numbers is None or 0 in map(int, numbers.groups()):
            raise SourceError(f'--frame "{text}" is no size', where="--frame", why="as [CAMERA=]HEIGHTxWIDTH",
                              fix="e.g. --frame 480x640")
        if camera and camera not in names:
            raise SourceError(f'--frame: there is no camera "{camera}"', where=str(where), why=nearest(camera, names),
                              fix=f"name one of {', '.join(names)}")
        found |= dict.fromkeys([camera] if camera else [n for n in names if n not in found],
                               (int(numbers[1]), int(numbers[2])))
    if set(found) != set(names):
        missing = [n for n in names if n not in found]
        raise SourceError("the size of the cameras' frames is not known", where=str(where),
                          why=f"no file says it, of {', '.join(missing)}; frames of any size are scaled, cropped and "
                              "scaled again", fix="build with --frame HEIGHTxWIDTH, or CAMERA=HEIGHTxWIDTH for each, "
                                                  "separated by commas")
    return {n: found[n] for n in names}


def groups_said(groups: Mapping[str, tuple[int, int]]) -> str:
    """{group: (first, end)} -> which numbers each is, for the manifest."""
    return ", ".join(f"{name} {first}" if end == first + 1 else f"{name} {first}-{end - 1}"
                     for name, (first, end) in groups.items())
