"""A bundle on disk: NAME.vlab/. Writing is atomic; reading refuses what is damaged.

    plan.bin  plan.txt  manifest.json  stages/*.onnx (*.so)  stages/weights.bin  golden/golden.bin

The weights lie beside the stages because ONNX Runtime accepts external data only from the model's
own directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlacompile.bundle.plan.binary import plan_bytes, read_plan
from vlacompile.bundle.plan.plan import File, Plan
from vlacompile.bundle.plan.text import plan_text
from vlacompile.errors import BundleError, ConfigError, nearest
from vlacompile.files.atomic import put_tree, write_tree
from vlacompile.vocabulary import COMPILED

PLAN_FILE = "plan.bin"
TEXT_FILE = "plan.txt"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden/golden.bin"
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
    """The bundle as a session with this backbone selected sees it; None: the first. Of a bundle that is one policy, as
    it is. Raises ConfigError."""
    names = [b.name for b in bundle.plan.backbones]
    if name is None and not names:
        return bundle
    if name is not None and name not in names:
        raise ConfigError(f'the bundle has no backbone "{name}"', where=str(bundle.path),
                          why=nearest(name, names) if names else "it is one policy",
                          fix="`vlacompile inspect` lists them")
    return replace(bundle, plan=bundle.plan.of_backbone(name or names[0]))


def file_table(contents: Mapping[str, bytes], texts: int = 0) -> tuple[File, ...]:
    """The plan's files. texts: how many tokenizers it has."""
    kinds = {tokenizer_path(i): "tokenizer" for i in range(texts)} | _KINDS
    return tuple(File(p, kinds.get(p, "stage"), len(data), zlib.crc32(data)) for p, data in contents.items())


def with_files(plan: Plan, contents: Mapping[str, bytes]) -> Plan:
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


def write_bundle(out: Path, plan: Plan, contents: Mapping[str, bytes], provenance: dict,
                 accept: Callable[[Path], object]) -> Bundle:
    """Write into a temporary sibling, let `accept` replay it, then put it in place of `out`.

    plan: with the file table of `contents`. Whatever goes wrong, a cut of power too, `out` is either the old bundle,
    whole, or the new one. Raises BundleError when `out` exists and is not a bundle.
    """
    assert plan.files == file_table(contents, len(plan.texts)), "the plan's files are other files"
    out = Path(os.path.abspath(out))  # noqa: PTH100  a link to a bundle stays one
    check_destination(out)
    every = {**contents, PLAN_FILE: plan_bytes(plan), TEXT_FILE: plan_text(plan).encode()}
    manifest = {
        "name": plan.name,
        "files": {p: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for p, d in sorted(every.items())},
        "provenance": provenance,
    }
    every[MANIFEST_FILE] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
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
    where = path / MANIFEST_FILE
    try:
        manifest = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{MANIFEST_FILE} cannot be read", where=str(where), why=str(error),
                          fix="build the bundle again, or copy it again") from error
    return Bundle(path, plan, manifest)


def check_files(bundle: Bundle) -> None:
    """Compare every file with the manifest. Raises BundleError naming the first that differs."""
    for relative, entry in bundle.manifest["files"].items():
        path = bundle.path / relative
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"{relative} is missing", where=str(path), why=str(error.strerror),
                              fix="copy the bundle again") from error
        if digest != entry["sha256"]:
            raise BundleError(f"{relative} was altered", where=str(path),
                              why=f"sha256 is {digest[:12]}..., the manifest says {entry['sha256'][:12]}...",
                              fix="copy or build the bundle again")
