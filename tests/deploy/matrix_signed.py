"""The rows of matrix.py that are of a device with signers: it runs release 2, has release 1 in the other slot, and gets
release 3."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.deploy.board import Board, variant
from tests.deploy.matrix import Fault, Stage, Wrong, cut_at, struck
from tests.samples import ssh_keys
from vlacompile.cli.main import main
from vlart.bundle.directory import Bundle, read_bundle
from vlart.bundle.signature import NAMESPACE, sign


def signed_stage(board: Board, built: Bundle, folder: Path) -> Stage:
    keys = folder / "keys"
    for name in ("ours", "foreign"):
        ssh_keys.new_key(keys, name)
        ssh_keys.allow(keys / f"{name}.signers", keys / name, options=f'namespaces="{NAMESPACE}"')
    board.forget()
    if board.enroll(keys / "ours.signers"):
        raise Wrong("the device cannot be enrolled")
    bundles = []
    for release in (1, 2, 3):
        made = read_bundle(variant(built, folder / f"signed{release}.vlab", 10 + release).path)
        sign(made, keys / "ours", release)
        bundles.append(made)
    for made in bundles[:2]:
        if board.flash(made):
            raise Wrong("the device cannot be flashed")
    base = folder / "signed"
    shutil.copytree(board.root, base, symlinks=True)
    return Stage(board, bundles[1], bundles[2], bundles[0].hash, base)


def _kept(name: str, change: Callable[[Path], None]):
    """A file of the device is changed for as long as the first command takes."""
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        path = stage.board.root / name
        whole = path.read_bytes()
        path.chmod(0o644)
        change(path)
        yield
        path.unlink()
        path.write_bytes(whole)
    return around


def _enrolled(name: str):
    """Another list of signers, until the first command has ended: a key was removed from it."""
    @contextlib.contextmanager
    def around(stage: Stage) -> Iterator[None]:
        general = ["--ssh-config", str(stage.board.sshd.config), "--replace", "--signers"]
        keys = stage.base.parent / "keys"
        if main(["device", "enroll", "board", *general, str(keys / f"{name}.signers")]):
            raise Wrong("it cannot be enrolled")
        yield
        if main(["flash", "--rollback", "board", *general[:2]]) != 12:
            raise Wrong("a slot of a key that was removed is gone back to")
        if main(["device", "enroll", "board", *general, str(keys / "ours.signers")]):
            raise Wrong("it cannot be enrolled again")
    return around


@contextlib.contextmanager
def _without_keygen(stage: Stage) -> Iterator[None]:
    shim = stage.board.sshd.path / "ssh-keygen"
    usual = shim.read_text() if shim.exists() else None
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    yield
    shim.unlink() if usual is None else shim.write_text(usual)


@contextlib.contextmanager
def _older(stage: Stage) -> Iterator[None]:
    """The counter is ahead, as after a newer bundle."""
    path = stage.board.policy / "release"
    path.write_text("4\n")
    yield
    path.write_text("2\n")


def signed_faults() -> list[Fault]:
    kind = "signed"
    return [
        Fault(kind, "the key is removed from the list", _enrolled("foreign"), told="signed by none of the signers"),
        Fault(kind, "list of signers torn", _kept("signers", lambda p: p.write_bytes(p.read_bytes()[:60])),
              told="signed by none of the signers"),
        Fault(kind, "list of signers empty", _kept("signers", lambda p: p.write_bytes(b"")),
              told="signed by none of the signers"),
        Fault(kind, "release counter torn", _kept("policies/late_fusion/release", lambda p: p.write_text("many\n")),
              told="the release counter of board is damaged"),
        Fault(kind, "an older bundle", _older, told="older than board had"),
        Fault(kind, "ssh-keygen is gone", _without_keygen, told="ssh-keygen is missing or too old"),
        Fault(kind, "connection cut, step permit", cut_at("permit")),
        Fault(kind, "shell killed, step permit", struck("permit", "ssh-keygen", 3)),
        Fault(kind, "shell killed, step link, after date 1", struck("link", "date", 1, "after")),
        Fault(kind, "shell killed, before the counter is written", struck("activate", "mv", 1, "before")),
        Fault(kind, "shell killed, after the counter is written", struck("activate", "mv", 1, "after")),
        Fault(kind, "shell killed, after the switch", struck("activate", "mv", 2, "after"), runs=("new",))]
