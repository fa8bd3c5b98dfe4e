"""Installs one bundle on one device: probe, send what is missing, fill the idle slot, build, self-test, then switch.

Until the switch the device keeps its current slot; after an interruption the same call continues where it stopped. The
steps on the device are in device.sh. Must not know the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlacompile.deploy import ROOT
from vlacompile.deploy.device import Device, check_board, device_of
from vlacompile.deploy.payload import (
    BUNDLE,
    SIGNATURE,
    Piece,
    check_stages,
    engine_for,
    how_to_get_engine,
    identity,
    pieces_of,
    programs_for,
)
from vlacompile.deploy.ssh import Connection, Refused
from vlacompile.files.transfer import Transfer
from vlart.bundle.directory import Bundle
from vlart.bundle.precision_record import require_calibrated
from vlart.errors import DeployError
from vlart.vocabulary import COMPILED

SPARE_BYTES = 64 << 20  # kept free on the device, besides what is sent
LARGE_BYTES = 32_000_000  # a file whose hash takes the device a noticeable time
IN_SLOT = "@slot/"  # prefix of an argument that is a file of the slot (device.sh)
BUILD_S, TEST_S = 3600.0, 900.0  # that vlart-build and vlart-run may be silent
MOST_BYTES = 4 << 30  # of a slot whose size is not known
WIDTH = 60  # columns of a line of vlart-build


@dataclass(frozen=True)
class Options:
    """root, ort, tensorrt, tvm: paths on the device (ONNX Runtime's library; the folders of libvlart_tensorrt*.so and
    of libtvm_*.so).
    runtime: folder of vlart-run on this machine. engine: ONNX Runtime's library to send; None: the one found on this
    machine, unless `ort` names one on the device. board: which board the device is, if its device tree does not say.
    keep: number of bundles whose files stay on the device. config: of ssh. batch: never ask for a password.
    uncalibrated: accept a bundle whose quantisation error nobody has measured (bundle/precision_record.py).
    native_code: load its stages of machine code (TVM) although no signer of the device's vouches for them."""

    root: str = ROOT
    ort: str | None = None
    tensorrt: str | None = None
    tvm: str | None = None
    board: str | None = None
    runtime: Path | None = None
    engine: Path | None = None
    keep: int = 2
    unit: bool = False
    config: Path | None = None
    batch: bool = True
    uncalibrated: bool = False
    native_code: bool = False


@dataclass(frozen=True)
class Flashed:
    """sent: bytes transferred, of `bytes`. before: the slot that was current, or None. said: vlart-run's last line.
    current: it was current already; nothing was switched. lingers: the unit starts at boot, not at a log-in."""

    host: str
    device: str
    policy: str
    identity: str
    slot: str
    before: str | None
    current: bool
    sent: int
    bytes: int
    said: str
    unit: str | None
    seconds: float
    lingers: bool = False


def connect(host: str, options: Options, *, lock: bool = True) -> Connection:
    return Connection(host, options.root, config=options.config, batch=options.batch, lock=lock)


def flash(bundle: Bundle, connection: Connection, options: Options,
          progress: Callable[[str], None] = lambda text: None) -> Flashed:
    """Over an open connection, for a bundle whose files were checked. Raises CalibrationError and DeployError; the
    device then still runs what it ran before."""
    require_calibrated(bundle, options.uncalibrated)
    return _Flash(bundle, connection, options, progress).run()


class _Flash:
    def __init__(self, bundle: Bundle, connection: Connection, options: Options, progress: Callable[[str], None]):
        self.bundle, self.connection, self.options, self.progress = bundle, connection, options, progress
        self.host, self.policy = connection.host, bundle.plan.name
        self.sent = self.total = 0  # bytes
        self.ort: str | None = None
        self.native_code = False
        self.transfer = Transfer(0, progress)

    def run(self) -> Flashed:
        began = time.monotonic()
        device = self._probe()
        backends = {stage.backend for stage in self.bundle.plan.stages}
        pieces = pieces_of(self.bundle) + programs_for(device.arch, self.options.runtime,
                                                       "tensorrt" in backends, self.host)
        engine = self._engine(device, backends)
        self.ort = self._ort(device, backends, engine)
        pieces += (engine,) if engine else ()
        arguments = self._arguments(device, backends)
        name = identity(pieces, arguments)
        self.total = sum(p.bytes for p in pieces)
        before, running = self._send_missing(device, pieces)
        slot, current = before, running == name
        if not current:
            slot = self._link(pieces, name, arguments)
            if "tensorrt" in backends:
                self._build(slot, backends)
        said = self._prove(slot, before)
        if not current:
            self.progress(f"switch to slot {slot}")
            self.connection.run("activate", self.policy, slot, "flashed", str(self.options.keep))
        unit, lingers = self._unit() if self.options.unit else (None, False)
        return Flashed(self.host, device.words, self.policy, name, slot, before, current, self.sent,
                       sum(p.bytes for p in pieces), said, unit, time.monotonic() - began, lingers)

    def _probe(self) -> Device:
        self.progress("probe the device")
        device = device_of(self.host, self.connection.run("probe", self.options.ort or ""), self.options.board)
        check_board(device, self.bundle.plan.target)
        check_stages(self.bundle, device.arch, self.host)
        return device

    def _engine(self, device: Device, backends: set[str]) -> Piece | None:
        """ONNX Runtime's library to send, if stages need it and --ort does not name one on the device."""
        if "onnxruntime" not in backends or self.options.ort is not None:
            return None
        return engine_for(device.arch, self.options.engine, self.options.runtime, self.host)

    def _ort(self, device: Device, backends: set[str], engine: Piece | None) -> str | None:
        """Path of ONNX Runtime's library for the device's programs. Raises DeployError if it is needed and cannot be
        found."""
        wanted = self.options.ort
        if wanted is not None and wanted not in device.ort:
            raise DeployError(f"ONNX Runtime's library is not on {self.host}", where=wanted, why="no such file",
                              step="probe",
                              fix="pip install onnxruntime there, or omit --ort: a copy is then sent along")
        if engine is not None:
            return f"{IN_SLOT}{engine.path}"
        if "onnxruntime" in backends and not device.ort:
            raise DeployError(f"ONNX Runtime's library is neither on {self.host} nor on this machine for {device.arch}",
                              where=device.words, why="the bundle's stages need it; it is in none of the usual places",
                              step="probe", fix=how_to_get_engine(device.arch))
        return wanted or next(iter(device.ort), None)

    def _arguments(self, device: Device, backends: set[str]) -> tuple[str, ...]:
        """Arguments of vlart-run on this device."""
        compiled = bool(backends & COMPILED)
        self.native_code = compiled and (self.options.native_code or device.signers is not None)
        if compiled and not self.native_code:
            raise DeployError("the bundle has stages of machine code, and no signer vouches for them",
                              where=f"{self.host}, step probe", step="probe",
                              why="TVM compiled them, and no signers are enrolled there",
                              fix="sign the bundle and run `vlacompile device enroll`; or, where you built it "
                              "yourself, --native-code")
        words = ["--ort", self.ort] if self.ort else []
        if "tensorrt" in backends and self.options.tensorrt:
            words += ["--tensorrt", f"{self.options.tensorrt}/libvlart_tensorrt.so"]
        return tuple(words + self._tvm(backends))

    def _tvm(self, backends: set[str]) -> list[str]:
        """Arguments of vlart-run and vlart-build for TVM's libraries."""
        code = ["--native-code"] if self.native_code else []
        if self.options.tvm is None or not backends & COMPILED:
            return code
        libraries = {"--tvm-ffi": "libtvm_ffi.so", "--tvm": "libtvm_runtime.so"}
        libraries |= {"--tvm-cuda": "libtvm_runtime_cuda.so"} if "tvm_cuda" in backends else {}
        return code + [word for option, name in libraries.items() for word in (option, f"{self.options.tvm}/{name}")]

    def _send_missing(self, device: Device, pieces: tuple[Piece, ...]) -> tuple[str | None, str | None]:
        """The current slot and its identity, or None."""
        unique = {p.sha256: p for p in pieces}
        table = "".join(f"{p.sha256} {p.bytes}\n" for p in unique.values()).encode()
        answers = self.connection.run("missing", self.policy, send=[table], work_bytes=2 * self.total)
        have = {sha: int(size) for sha, size in (value.split() for key, value in answers if key == "need")}
        if not have.keys() <= unique.keys() or any(size > unique[sha].bytes for sha, size in have.items()):
            raise DeployError(f"{self.host} asks for files that are none of the bundle's",
                              where=f"{self.host}, step missing", why="or for more of one than there is",
                              fix="look at the device", step="missing")
        need = sum(unique[sha].bytes - size for sha, size in have.items())
        if need and need + SPARE_BYTES > device.free_bytes:
            raise DeployError(f"{self.host} has too little space", where=device.root, step="send",
                              why=f"{need / 1e6:.0f} MB are to be sent and {SPARE_BYTES / 1e6:.0f} MB left free; "
                              f"{device.free_bytes / 1e6:.0f} MB are free", fix="free some, or choose another --root")
        self.transfer = Transfer(need, self.progress)
        signature = [next((p.sha256 for p in pieces if p.path == f"{BUNDLE}/{name}"), "none") for name in SIGNATURE]
        for sha in (s for s in signature if s in have):
            self._send(unique[sha], have[sha])
        if have and device.signers is not None:  # so that nothing large is sent in vain
            self.connection.run("permit", self.policy, *signature)
        for sha in (s for s in have if s not in signature):
            self._send(unique[sha], have[sha])
        current = dict(answers).get("current", "").split()
        return (current[0], current[1]) if current else (None, None)

    def _send(self, piece: Piece, have: int) -> None:
        """Resume at byte `have`; if the hash does not match, send the file again, once."""
        for offset in (have, 0):
            answers = dict(self._put(piece, offset))
            if "stored" in answers:
                return
            if "bad" not in answers:
                raise DeployError(f"{self.host} received only part of {piece.path}", where=f"{self.host}, step put",
                                  why=f"{answers.get('part', '0')} of {piece.bytes} bytes arrived",
                                  fix="run the same command again; it resumes", step="put")
        raise DeployError(f"{piece.path} arrived damaged on {self.host}", where=f"{self.host}, step put",
                          why=f"sha256 is {answers['bad'][:12]}..., not {piece.sha256[:12]}...",
                          fix="check the device's memory and disk, then run the same command again", step="put")

    def _put(self, piece: Piece, offset: int) -> list[tuple[str, str]]:
        def counted():
            for part in piece.from_offset(offset):
                self.transfer.add(len(part))
                self.sent += len(part)
                yield part
            if piece.bytes > LARGE_BYTES:
                self.progress(f"hash {piece.path} on the device"[:WIDTH])
        return self.connection.run("put", piece.sha256, str(piece.bytes), str(offset), send=counted(),
                                   work_bytes=2 * piece.bytes)

    def _link(self, pieces: tuple[Piece, ...], name: str, arguments: tuple[str, ...]) -> str:
        """Fill the idle slot and return its name. Damaged files of the store are sent again, once."""
        self.progress("fill the idle slot and check every file")
        table = "".join(f"{p.sha256} {p.mode} {p.path}\n" for p in pieces).encode()
        for _ in range(2):
            answers = self.connection.run("link", self.policy, name, *arguments, send=[table],
                                          work_bytes=4 * self.total)
            unique = {p.sha256: p for p in pieces}
            damaged = {value for key, value in answers if key == "damaged" and value in unique}
            if "slot" in dict(answers):
                return dict(answers)["slot"]
            self.transfer = Transfer(sum(unique[sha].bytes for sha in damaged), self.progress)
            for sha in sorted(damaged):
                self._send(unique[sha], 0)
        raise DeployError(f"stored files change on {self.host}", where=f"{self.host}, step link",
                          why=f"{len(damaged)} files changed twice after their hash was checked",
                          fix="check the device's disk", step="link")

    def _build(self, slot: str, backends: set[str]) -> None:
        words = ["--ort", self.ort] if self.ort else []
        if self.options.tensorrt:
            words += ["--tensorrt", f"{self.options.tensorrt}/libvlart_tensorrt.so",
                      "--tensorrt-builder", f"{self.options.tensorrt}/libvlart_tensorrt_builder.so"]
        self.progress("build engines on the device")
        self.connection.run("build", self.policy, slot, *words, *self._tvm(backends), silent_s=BUILD_S,
                            heard=lambda line: self.progress(f"build {line.replace(':', '').strip()}"[:WIDTH]))

    def _prove(self, slot: str, before: str | None) -> str:
        self.progress(f"self-test of slot {slot}")
        return prove(self.connection, self.policy, slot, before, self.total)

    def _unit(self) -> tuple[str, bool]:
        self.progress("install the systemd unit")
        answers = dict(self.connection.run("unit", self.policy))
        return answers["unit"], answers.get("lingers") == "yes"


def prove(connection: Connection, policy: str, slot: str, current: str | None, slot_bytes: int = MOST_BYTES) -> str:
    """vlart-run's last line. slot_bytes: of the slot, all of which are read again. Raises DeployError with vlart-run's
    own message and the slot that is still current."""
    lines: list[str] = []
    try:
        connection.run("self_test", policy, slot, heard=lines.append, work_bytes=2 * slot_bytes, silent_s=TEST_S)
    except Refused as refused:
        if refused.key not in ("self_test", "altered"):
            raise
        told = {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}
        still = f"it still runs slot {current}" if current else "no slot is active"
        why = "; ".join(told[k] for k in ("what", "where", "why") if told.get(k)) or refused.why
        if refused.key == "altered":
            raise DeployError(f"slot {slot} is damaged on {connection.host}; {still}", where=refused.where,
                              why=refused.what, fix=refused.fix, step="self_test") from refused
        raise DeployError(f"the self-test failed on {connection.host}; {still}", where=refused.where, why=why,
                          fix="build the bundle for this device again, or find what differs there",
                          step="self_test") from refused
    return next((line for line in reversed(lines) if line.strip()), "")


def roll_back(connection: Connection, policy: str | None, keep: int,
              progress: Callable[[str], None] = lambda text: None) -> tuple[str, str]:
    """(policy, slot) that is now current: the other slot, after its self-test. policy: None if there is only one."""
    found = dict(connection.run("other", policy or ""))
    policy, slot = found["policy"], found["slot"]
    progress(f"self-test of slot {slot}")
    prove(connection, policy, slot, "b" if slot == "a" else "a")
    progress(f"switch to slot {slot}")
    connection.run("activate", policy, slot, "rolled-back", str(keep))
    return policy, slot
