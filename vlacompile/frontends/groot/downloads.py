"""Files of the models that a GR00T checkpoint names and does not contain: sizes, tokenizer, image processor."""

from __future__ import annotations

from pathlib import Path

from vlart.errors import SourceError

HUB = "download it once (hf download), or put a local directory there"


def downloaded(repository: str, file: str, named_by: str, get: str = HUB) -> Path:
    """A file in a directory, in LeRobot's own downloads, or in the hub's cache. named_by: the file and key that name
    the repository. get: how a person gets it. Raises SourceError."""
    from huggingface_hub import try_to_load_from_cache
    from lerobot.utils.constants import HF_LEROBOT_HOME

    places = [Path(repository) / file, Path(HF_LEROBOT_HOME) / repository / file]
    if not Path(repository).is_absolute():
        cached = try_to_load_from_cache(repository, file)
        places += [Path(cached)] if isinstance(cached, str) else []
    for place in places:
        if place.is_file():
            return place
    raise SourceError(f"{file} of {repository} is not on this machine", where=named_by,
                      why="a checkpoint of this policy does not contain the sizes and the tokenizer of its backbone",
                      fix=get)
