"""Types that LeRobot ships and that are refused before anything of them is loaded, each with what stands against it."""

from __future__ import annotations

from pathlib import Path

from vlart.errors import SourceError

REFUSED = {  # type: (why, fix)
    "lingbot_va": ("a chunk is computed from what the ones before left: keys and values of the last attn_window / 2 "
                   "chunks, the autoencoder's features and the count of frames; it sees every keyframe in between, and "
                   "the first chunk of an episode is another computation than the others",
                   "serve it by LeRobot"),
}


def require_not_refused(path: Path, kind: str) -> None:
    """Raises SourceError."""
    if kind in REFUSED:
        why, fix = REFUSED[kind]
        raise SourceError(f'checkpoints of type "{kind}" cannot be compiled', where=str(path / "config.json"), why=why,
                          fix=fix)
