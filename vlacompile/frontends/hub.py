"""Names on the Hugging Face Hub -> directories in huggingface_hub's cache, which frontends read like any other.

The cache, the token, the address of the Hub (HF_ENDPOINT) and the offline mode (HF_HUB_OFFLINE) are huggingface_hub's
own. Small files are fetched first, so that a checkpoint that no frontend reads costs no download of weights. Must not
know what the files mean, except which ones are weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from vlacompile.files.transfer import Transfer
from vlacompile.frontends import hub_refusals as refusals
from vlart.errors import SourceError

Progress = Callable[[str], None]

PICKLED = ("pytorch_model*.bin", "mp_rank_00_model_states.pt")  # read where there are no safetensors
WEIGHTS = ("*model.safetensors", "*model-*-of-*.safetensors", "*--*checkpoint.pt", *PICKLED)
# _METADATA shows weights of a kind that is refused with the way to convert them
READ = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.yaml", "*.toml", "*--*checkpoint.pt",
        *PICKLED, "*/_METADATA")
# States of a training and earlier checkpoints of the same run: gigabytes that no frontend reads.
IGNORED = ("*training_state/*", "checkpoint*/*", "optimizer*", "wandb/*")
LARGE_BYTES = 32_000_000  # a file that takes a noticeable time

_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([^@\s]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CACHED = re.compile(r"models--([^/]+?)--([^/]+)")  # the folder of a repository in the cache


@dataclass(frozen=True)
class HubName:
    """A repository `org/name`, and the branch, tag or commit; None: the main branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """None for a text that cannot be a name: `./org/name` is a path and nothing else, and so is an ONNX file."""
        found = _NAME.fullmatch(text)
        return None if found is None or text.endswith(".onnx") else cls(found[1], found[2])

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def name_of(path: Path) -> HubName | None:
    """The repository and commit of a directory of the cache; None for any other directory."""
    commit, snapshots, repository = path.name, path.parent.name, _CACHED.fullmatch(path.parent.parent.name)
    if repository is None or snapshots != "snapshots" or not _COMMIT.fullmatch(commit):
        return None
    return HubName(f"{repository[1]}/{repository[2]}", commit)


def directory(source: str | Path, weights: bool = True) -> Path:
    """A directory, or that of a name on the Hub if there is no such path. Raises SourceError."""
    name = HubName.parse(str(source))
    if name is None or Path(source).exists():
        return Path(source)
    return fetch(name, lambda path: weights, lambda line: None)


def fetch(name: HubName, weights: Callable[[Path], bool], progress: Progress) -> Path:
    """The directory in the cache with the files of that revision that frontends read.

    weights: called with the directory when all but the weights is there; whether they are needed, too. What it raises
    ends the download. Raises SourceError.
    """
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise refusals.not_installed(name) from error
    with _silent():
        found = _offline if constants.HF_HUB_OFFLINE else _online
        path, whole = found(name, weights, progress)
    there = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*")) if p.is_file()]
    _check(path, [*_chosen(there, False), *(_chosen(there, True) if whole else ())], progress)
    return path


def _offline(name: HubName, weights: Callable[[Path], bool], progress: Progress) -> tuple[Path, bool]:
    path = _cached(name, False)
    progress(f"take {_short(name_of(path) or name)} from the cache, offline")
    whole = weights(path)
    return (_cached(name, True) if whole else path), whole


def _online(name: HubName, weights: Callable[[Path], bool], progress: Progress) -> tuple[Path, bool]:
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    progress(f"look up {name}")
    try:
        found = HfApi().model_info(name.repository, revision=name.revision, files_metadata=True,
                                   timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # huggingface_hub's errors, its HTTP library's and the system's
        # A commit is the same wherever it comes from. A branch may have moved, so that its cached state is not taken.
        cached = _or_none(name) if refusals.is_unreachable(error) else None
        if cached is not None and _COMMIT.fullmatch(name.revision or ""):
            return _offline(name, weights, progress)
        raise refusals.refused(error, name, cached=None if cached is None else cached.name) from error
    name = replace(name, repository=found.id)  # the Hub follows old names of a repository
    sizes = {f.rfilename: f.size or 0 for f in found.siblings or ()}
    small = _chosen(sizes, False)
    progress(f"fetch {len(small)} small files, {sum(sizes[f] for f in small) / 1e6:.1f} MB")
    with _whole(name, "the small files"):
        # also writes the index by which huggingface_hub knows, offline, whether the cache has everything
        path = Path(snapshot_download(name.repository, revision=name.revision, **_patterns(False), **_bar(None)))
    if path.name != found.sha:
        raise refusals.moved(name, found.sha or "", path.name)
    if not weights(path):
        return path, False
    large = _chosen(sizes, True)
    refusals.check_space(name, path, sum(sizes[f] for f in large if not (path / f).exists()))
    for file in large:
        transfer = Transfer(0 if (path / file).exists() else sizes[file], progress, f"download {file}", "downloaded")
        with _whole(name, file):
            hf_hub_download(name.repository, file, revision=found.sha, **_bar(transfer))
    return path, True


@contextlib.contextmanager
def _whole(name: HubName, file: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # huggingface_hub's errors, its HTTP library's and the system's
        raise refusals.cut(error, name, file) from error


def _short(name: HubName) -> str:
    """For a line of progress: a commit in 12 digits."""
    return f"{name.repository}@{(name.revision or '')[:12]}" if _COMMIT.fullmatch(name.revision or "") else str(name)


def _chosen(files: Iterable[str], weights: bool) -> list[str]:
    """The files that are weights, or those that are not, among those that frontends read."""
    def matches(file: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(file, p) for p in patterns)

    there = [f for f in files if matches(f, READ) and not matches(f, IGNORED) and matches(f, WEIGHTS) == weights]
    twice = any(f.endswith(".safetensors") for f in there)
    return [f for f in there if not (twice and matches(f, PICKLED))]


def _patterns(weights: bool) -> dict[str, list[str]]:
    """For huggingface_hub, the same choice; weights: with the weights."""
    return {"allow_patterns": [*READ], "ignore_patterns": [*IGNORED, *(() if weights else WEIGHTS)]}


def _cached(name: HubName, weights: bool) -> Path:
    """The directory in the cache, without any call of the Hub. Raises SourceError if it lacks some of the files."""
    from huggingface_hub import constants, snapshot_download

    try:
        path = Path(snapshot_download(name.repository, revision=name.revision, local_files_only=True,
                                      **_patterns(weights)))
    except Exception as error:  # LocalEntryNotFoundError and, for what is no name of a repository, HFValidationError
        raise refusals.not_cached(error, name, Path(constants.HF_HUB_CACHE)) from error
    if weights and not _chosen([p.relative_to(path).as_posix() for p in path.rglob("*")], weights=True):
        raise refusals.partly_cached(name, path, "its weights were never downloaded")
    return path


def _or_none(name: HubName) -> Path | None:
    try:
        return _cached(name, False)
    except SourceError:
        return None


def _check(path: Path, files: list[str], progress: Progress) -> None:
    """Compares each file with the digest by which the cache names it: SHA-256, or git's SHA-1 for small ones. Raises
    SourceError for a file that was changed or damaged."""
    for file in files:
        blob = (path / file).resolve()
        kind = {64: "sha256", 40: "sha1"}.get(len(blob.name))
        if blob.parent.name != "blobs" or kind is None:  # a cache without links, or a mirror with other names
            continue
        size = blob.stat().st_size
        if size > LARGE_BYTES:
            progress(f"check {file}")
        with blob.open("rb") as opened:
            plain = hashlib.file_digest(opened, kind).hexdigest()
        if plain != blob.name and (kind == "sha256" or _git_sha1(blob) != blob.name):
            raise refusals.damaged(blob, file, name_of(path))


def _git_sha1(blob: Path) -> str:
    content = blob.read_bytes()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def _bar(transfer: Transfer | None) -> dict[str, type]:
    """huggingface_hub's argument for a progress bar: one that draws nothing and reports to `transfer`."""
    from huggingface_hub import hf_hub_download
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **options):
            options.pop("name", None)
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            if transfer is not None:
                transfer.add(int(n or 0))

    # hf_hub_download takes it since huggingface_hub 1.0; an environment of a frontend may have an older one
    older = transfer is not None and "tqdm_class" not in inspect.signature(hf_hub_download).parameters
    return {} if older else {"tqdm_class": Bar}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without huggingface_hub's own messages; what matters in them is in the progress and in the refusals."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
