"""manifest.json: what the files of a bundle are, and where they come from. Anybody may have written it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vlart.errors import BundleError
from vlart.files.regular import read_below

MANIFEST_FILE = "manifest.json"
_MOST_BYTES = 1 << 26
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(root: Path) -> dict:
    """{"name", "files": {path: {"bytes", "sha256"}}, "provenance"}. Raises BundleError when it is missing or something
    else than that."""
    where = root / MANIFEST_FILE
    try:
        manifest = json.loads(read_below(root, MANIFEST_FILE, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_FILE} cannot be read", where=str(where),
                          why=(error.strerror if isinstance(error, OSError) else None) or str(error),
                          fix="build the bundle again, or copy it again") from error
    if (fault := _fault(manifest)) is not None:
        raise BundleError(f"{MANIFEST_FILE} is damaged", where=str(where), why=fault,
                          fix="build the bundle again, or copy it again")
    return manifest


def _fault(manifest: object) -> str | None:
    if not isinstance(manifest, dict) or not {"name", "files", "provenance"} <= set(manifest):
        return "it has no name, no table of files or no provenance"
    files, provenance = manifest["files"], manifest["provenance"]
    if not isinstance(files, dict) or not isinstance(provenance, dict):
        return "its files or its provenance are no table"
    for path, entry in files.items():
        whole = isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
        if not whole or entry["bytes"] < 0 or not _SHA256.fullmatch(entry["sha256"]):
            return f"{path!a} has no size or no sha256"
    named = [manifest["name"], *files, *(provenance.get("outputs") or ())]
    unfit = next((n for n in named if not isinstance(n, str) or not n.isprintable()), None)
    return None if unfit is None else f"{unfit!a} is no name"
