"""A bundle on disk: NAME.vlab/. Writing is atomic; reading refuses what is damaged.

    plan.bin  plan.txt  manifest.json  stages/*.onnx (*.so)  stages/weights.bin  golden/golden.bin
    SHA256SUMS  SHA256SUMS.sig    where it was signed (signature.py)
    engines/                      on a board, made there (vlart-build)

The weights lie beside the stages because ONNX Runtime accepts external data only from the model's
own directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlart.bundle.manifest import MANIFEST_FILE, read_manifest
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.plan import File, Plan
from vlart.bundle.plan.text import plan_text
from vlart.errors import BundleError, ConfigError, nearest
from vlart.files.atomic import put_tree, write_tree
from vlart.files.pieces import Content, crc32_of, sha256_of
from vlart.files.regular import sha256_below
from vlart.vocabulary import COMPILED

PLAN_FILE = "plan.bin"
TEXT_FILE = "plan.txt"
GOLDEN_FILE = "golden/golden.bin"
SUMS_FILE, SIGNATURE_FILE = "SHA256SUMS", "SHA256SUMS.sig"
ENGINES = "engines"
ENCODED = "encoded_by_host"  # in the provenance: sources that the host computes of a text and recorded values
WEIGHTS_FILE = "stages/weights.bin"
_KINDS = {WEIGHTS_FILE: "weights", GOLDEN_FILE: "golden"}


@dataclass(frozen=True)
class Bundle:
    """path: the directory. plan, manifest: what it says of itself. accepted: what the acceptance of a
    bundle just written returned (the parity report of its replay); None for one that was read."""

    path: Path
    plan: Plan
    manifest: dict
    accepted: object = None

    def text(self) -> str:
        """The plan, as plan.txt says it."""
        return plan_text(self.plan)

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.plan.files) + (self.path / PLAN_FILE).stat().st_size

    @property
    def hash(self) -> str:
        """sha256 of the manifest's file table: names the bundle's whole content."""
        table = json.dumps(self.manifest["files"], sort_keys=True)
        return hashlib.sha256(table.encode()).hexdigest()


def one_backbone(bundle: Bundle, name: str | None) -> Bundle:
    """The bundle as a session with this backbone selected sees it; None: the first, or the longest of lengths of a
    text. Of a bundle that is one policy, as it is. Raises ConfigError."""
    names = [b.name for b in bundle.plan.backbones]
    if name is None and not names:
        return bundle
    if name is not None and name not in names:
        raise ConfigError(f'the bundle has no backbone "{name}"', where=str(bundle.path),
                          why=nearest(name, names) if names else "it is one policy",
                          fix="`vlacompile inspect` lists them")
    return replace(bundle, plan=bundle.plan.of_backbone(name or names[-1 if bundle.plan.buckets else 0]))


def file_table(contents: Mapping[str, Content], texts: int = 0) -> tuple[File, ...]:
    """The plan's files. texts: how many tokenizers it has."""
    kinds = {tokenizer_path(i): "tokenizer" for i in range(texts)} | _KINDS
    return tuple(File(p, kinds.get(p, "stage"), len(data), crc32_of(data)) for p, data in contents.items())


def with_files(plan: Plan, contents: Mapping[str, Content]) -> Plan:
    """The plan of a bundle with other contents: its file table anew, and its artefacts and weights pointing into it."""
    files = file_table(contents, len(plan.texts))
    place = {f.path: i for i, f in enumerate(files)}
    weights = tuple(replace(w, file=place[WEIGHTS_FILE]) for w in plan.weights)
    stages = tuple(replace(s, artefact=place.get(stage_path(s.name, s.backend))) for s in plan.stages)
    texts = tuple(replace(t, tokenizer=place[tokenizer_path(i)]) for i, t in enumerate(plan.texts))
    return replace(plan, files=files, weights=weights, stages=stages, texts=texts)


def tokenizer_path(text: int) -> str:
    """Of the plan's text of this index."""
    return f"tokenizers/{text}.bin"


def stage_path(name: str, backend: str = "onnxruntime") -> str:
    return f"stages/{name}.{'so' if backend in COMPILED else 'onnx'}"


def check_destination(out: Path) -> None:
    """Raises BundleError when `out` cannot become a bundle: something else is there."""
    if out.exists() and not (out / PLAN_FILE).is_file():
        raise BundleError(f"{out.name} exists and is not a bundle", where=str(out), why=f"it has no {PLAN_FILE}",
                          fix="choose another path for -o, or move what is there")


def write_bundle(out: Path, plan: Plan, contents: Mapping[str, Content], provenance: dict,
                 accept: Callable[[Path], object]) -> Bundle:
    """Write into a temporary sibling, let `accept` replay it, then put it in place of `out`.

    plan: with the file table of `contents`. Whatever goes wrong, a cut of power too, `out` is either the old bundle,
    whole, or the new one. Raises BundleError when `out` exists and is not a bundle.
    """
    assert plan.files == file_table(contents, len(plan.texts)), "the plan's files are other files"
    out = Path(os.path.abspath(out))  # noqa: PTH100  a link to a bundle stays one
    check_destination(out)
    every: dict[str, Content] = {**contents, PLAN_FILE: plan_bytes(plan), TEXT_FILE: plan_text(plan).encode()}
    manifest = {
        "name": plan.name,
        "files": {p: {"bytes": len(d), "sha256": sha256_of(d)} for p, d in sorted(every.items())},
        "provenance": provenance,
    }
    every[MANIFEST_FILE] = (json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    new = out.with_name(f"{out.name}.tmp{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)  # of a process of the same number that was cut off
        write_tree(new, every)
        accepted = accept(new)
        put_tree(new, out)
    except OSError as error:
        raise BundleError("the bundle cannot be written", where=str(out), why=str(error),
                          fix="check the path, its rights and the free space") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return Bundle(out, plan, manifest, accepted)


def read_bundle(path: str | Path) -> Bundle:
    """Read the plan and the manifest. Raises BundleError when one is missing or damaged."""
    path = Path(path)
    plan = read_plan(path / PLAN_FILE)
    return Bundle(path, plan, read_manifest(path))


def check_files(bundle: Bundle) -> None:
    """Compare every file with the manifest. Raises BundleError naming the first that differs, that is missing or that
    the manifest does not have."""
    for relative in (PLAN_FILE, *(f.path for f in bundle.plan.files)):
        if relative not in bundle.manifest["files"]:
            raise BundleError(f"{relative} is not in the manifest", where=str(bundle.path / MANIFEST_FILE),
                              why="nothing says what its content should be", fix="copy or build the bundle again")
    for relative, entry in bundle.manifest["files"].items():
        path = bundle.path / relative
        try:
            digest = sha256_below(bundle.path, relative, entry["bytes"])
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise BundleError(f"{relative} {'is missing' if missing else 'was altered'}", where=str(path),
                              why=str(error.strerror), fix="copy or build the bundle again") from error
        if digest != entry["sha256"]:
            raise BundleError(f"{relative} was altered", where=str(path),
                              why=f"sha256 is {digest[:12]}..., the manifest says {entry['sha256'][:12]}...",
                              fix="copy or build the bundle again")
    for relative in files_of(bundle.path):
        if relative not in (*bundle.manifest["files"], MANIFEST_FILE, SUMS_FILE, SIGNATURE_FILE):
            raise BundleError(f"{relative} is not in the manifest", where=str(bundle.path / MANIFEST_FILE),
                              why="nothing says what its content should be",
                              fix="remove that file, or copy the bundle again")


def files_of(root: Path) -> list[str]:
    """Everything below a bundle's directory that is no directory, links too; without the engines that a board made."""
    found = []
    for folder, below, names in os.walk(root):
        place = Path(folder).relative_to(root)
        links = [name for name in below if (Path(folder) / name).is_symlink()]
        found += [str(place / name) for name in (*names, *links)]
        if place == Path() and ENGINES in below:
            below.remove(ENGINES)
    return sorted(found)
