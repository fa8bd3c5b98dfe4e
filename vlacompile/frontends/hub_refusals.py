"""What huggingface_hub raises -> what, where, why, fix. Must not call the Hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vlart.errors import SourceError

if TYPE_CHECKING:
    from vlacompile.frontends.hub import HubName

INSTALL = "pip install 'vlacompile[hub]'"
_OFFLINE = "HF_HUB_OFFLINE is set, so that the Hub is not asked"
LOGIN = "`hf auth login`, or HF_TOKEN=..."


def not_installed(name: HubName) -> SourceError:
    return SourceError(f'"{name}" does not exist, and no name on the Hub can be looked up', where="SOURCE",
                       why="no such file or directory; huggingface_hub, which fetches names like org/name, is not "
                           "installed", fix=f"correct the path, or {INSTALL}")


def is_unreachable(error: Exception) -> bool:
    """Whether no answer came, or one that says that the Hub itself is down."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HfHubHTTPError):
        return _status(error) in (0, 408, 429) or _status(error) >= 500
    return not isinstance(error, HFValidationError)


def refused(error: Exception, name: HubName, cached: str | None = None) -> SourceError:
    """The Hub knows no such name, does not give it, or does not answer. cached: the commit that the cache has of it."""
    from huggingface_hub import errors

    where = f"{_endpoint()}/{name.repository}"
    if isinstance(error, errors.GatedRepoError):
        return SourceError(f"{name.repository} is gated", where=where,
                           why="its owner gives it to accounts that accepted the terms; " + _token(),
                           fix=f"accept the terms on its page, then {LOGIN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f'{name.repository} has no revision "{name.revision}"', where=where,
                           why="no branch, tag or commit is called so",
                           fix="give one that its page lists, or none for the main branch")
    if isinstance(error, errors.DisabledRepoError):
        return SourceError(f"{name.repository} is disabled", where=where, why="the Hub gives it to nobody",
                           fix="ask its owner, or take another checkpoint")
    if isinstance(error, errors.HFValidationError):
        return SourceError(f'"{name}" is neither a path nor a name on the Hub', where=str(Path.cwd()),
                           why=f"no such file or directory; {_said(error)}", fix="correct the path or the name")
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceError(f'"{name}" is neither a path nor a model on the Hub', where=f"{Path.cwd()}; {_endpoint()}",
                           why="no such file or directory, and no such repository, or a private one: " + _token(),
                           fix=f"correct the path or the name; for a private repository, {LOGIN}")
    if isinstance(error, errors.HfHubHTTPError) and _status(error) in (401, 403):
        return SourceError(f"the Hub does not give {name.repository}", where=where,
                           why=f"{_status(error)}: {_token()}", fix=f"give a token that may read it: {LOGIN}")
    fix = "check the network and HF_ENDPOINT, then run it again"
    if cached is not None:
        fix += f"; the cache has {name.repository}@{cached}"
    return SourceError(f'"{name}" is no path, and the Hub cannot be reached', where=where, why=_said(error), fix=fix)


def cut(error: Exception, name: HubName, file: str) -> SourceError:
    """A download that began and did not end; a refusal may also come as late as here, from a gated repository."""
    cause = error.__cause__  # huggingface_hub wraps what the Hub answered if the cache has no such file either
    answer = cause if isinstance(cause, Exception) and not is_unreachable(cause) else error
    if not is_unreachable(answer):
        return refused(answer, name)
    return SourceError(f"the download of {file} did not end", where=f"{_endpoint()}/{name.repository}",
                       why=_said(error), fix="run it again; what is complete is kept, of this file nothing")


def check_space(name: HubName, cache: Path, needed_bytes: int) -> None:
    """Raises SourceError if so much does not fit on the disk of the cache."""
    free_bytes = shutil.disk_usage(cache).free
    if needed_bytes > free_bytes:
        raise SourceError(f"the weights of {name} do not fit on the disk", where=str(cache),
                          why=f"they have {needed_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free",
                          fix="make room (`hf cache ls`), or set HF_HOME to a folder on another disk")


def moved(name: HubName, first: str, then: str) -> SourceError:
    return SourceError(f"{name} changed while it was read", where=f"{_endpoint()}/{name.repository}",
                       why=f"it was commit {first[:12]}, then {then[:12]}",
                       fix=f"run it again, or name the commit: {name.repository}@{then}")


def not_cached(error: Exception, name: HubName, cache: Path) -> SourceError:
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, HFValidationError):
        return refused(error, name)
    if hasattr(error, "snapshot_path"):  # huggingface_hub's index says which files there are
        return partly_cached(name, Path(error.snapshot_path), _missing(error))
    return SourceError(f'"{name}" is neither a path nor in the cache of the Hub', where=f"{Path.cwd()}; {cache}",
                       why=_OFFLINE, fix="correct the path or the name, or unset HF_HUB_OFFLINE for one build")


def partly_cached(name: HubName, where: Path, missing: str) -> SourceError:
    return SourceError(f"the cache has only a part of {name}", where=str(where), why=f"{missing}; {_OFFLINE}",
                       fix="unset HF_HUB_OFFLINE for one build")


def damaged(blob: Path, file: str, name: HubName | None) -> SourceError:
    return SourceError(f"{file} of {name} is not what the Hub has", where=str(blob),
                       why="its content does not have the digest that names it in the cache: it was changed or damaged",
                       fix=f"rm {blob}, then run it again")


def _missing(error: Exception) -> str:
    """The names of missing files in huggingface_hub's message; the message if it has none."""
    names = re.search(r"missing \((.+?)\)", str(error))
    return str(error) if names is None else f"it lacks {names[1]}"


def _token() -> str:
    from huggingface_hub import get_token

    return "no token was given" if get_token() is None else "the token that was given may not read it"


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _said(error: Exception) -> str:
    """The first line of an error, and of the one that caused it."""
    errors = (error, error.__cause__)
    return "; ".join(f"{type(e).__name__}: {(str(e).strip().splitlines() or ['no message'])[0]}"
                     for e in errors if e is not None)
