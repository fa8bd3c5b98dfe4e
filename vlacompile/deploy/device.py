"""Result of probing a device, and the check that a bundle was built for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vlacompile.files.toml import shipped
from vlacompile.hardware.target import load_target, modes_of
from vlart.errors import DeployError

# {part number in a device tree's `compatible`: target of that module}. p3767-0005 is the module of the Orin Nano
# developer kit (jetson-gpio pull request 119, Adafruit_Python_PlatformDetect pull request 379).
MODULES = {
    "p3767-0000": "orin-nx-16gb", "p3767-0001": "orin-nx-8gb", "p3767-0003": "orin-nano-8gb",
    "p3767-0004": "orin-nano-4gb", "p3767-0005": "orin-nano-8gb",
    "p3701-0004": "agx-orin-32gb", "p3701-0005": "agx-orin-64gb", "p3834-0008": "jetson-thor",
}
# {major release of L4T: JetPack} of those in targets/software.
JETPACKS = {36: "jetpack-6.2", 39: "jetpack-7.2"}
_L4T = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")


@dataclass(frozen=True)
class Device:
    """As probed. board: a target's name, or None if it is not a known board. l4t: "36.4.3", or None: not a Jetson.
    ort: ONNX Runtime's libraries on the device, best first. free_bytes: below the root. signers: hash of the list of
    those whose bundles it takes; None: anybody's."""

    host: str
    arch: str
    root: str
    free_bytes: int
    board: str | None = None
    model: str = ""
    l4t: str | None = None
    ort: tuple[str, ...] = ()
    signers: str | None = None

    @property
    def words(self) -> str:
        name = self.board or self.model.strip() or f"a machine with {self.arch}"
        return f"{name}, L4T {self.l4t}" if self.l4t else name

    @property
    def jetpack(self) -> str | None:
        return JETPACKS.get(int(self.l4t.split(".")[0])) if self.l4t else None


def device_of(host: str, answers: Iterable[tuple[str, str]], board: str | None) -> Device:
    """From the answers of the step `probe`. board: given by the user; None: read from its device tree."""
    one, ort = {}, []
    for key, value in answers:
        if key == "ort":
            ort.append(value)
        else:
            one[key] = value
    release = _L4T.search(one.get("l4t", ""))
    if board is None:
        compatible = one.get("compatible", "")
        board = next((target for part, target in MODULES.items() if part in compatible), None)
    return Device(host, one["arch"], one["root"], int(one["free_kib"]) * 1024, board, one.get("model", ""),
                  f"{release[1]}.{release[2]}" if release else None, tuple(ort), one.get("signers"))


def processor_of(name: str) -> str | None:
    """The processor of a target whose stages run on it; None: they run on a board's GPU, or it is no target here."""
    if name.startswith("host-"):
        return name.removeprefix("host-")
    if name not in shipped("targets") or modes_of(name):
        return None
    return load_target(name).processor


def _target_for(arch: str) -> str:
    return f"host-{arch}" if f"host-{arch}" in shipped("targets") else "host"


def check_board(device: Device, target: str) -> None:
    """Raises DeployError if a bundle built for `target` (NAME, or NAME@MODE+SOFTWARE) is for another board.

    A bundle for `host` may be sent to any processor that its stages run on: the self-test there decides. So may one for
    a computer whose stages run on its processor, if that is of the same kind.
    """
    name, _, rest = target.partition("@")
    where = f"{device.host}, step probe"
    if name == "host":
        return
    processor = processor_of(name)
    if processor is not None:
        if processor != device.arch:
            raise DeployError(f"the bundle is for {name}, {device.host} is {device.arch}", where=where,
                              why="the processors differ", fix=f"build it with --target {_target_for(device.arch)}",
                              step="probe")
        return
    if device.board != name:
        raise DeployError(f"the bundle is for {name}, {device.host} is {device.words}", where=where,
                          why="engines and memory plans are specific to a board",
                          fix=f"build it with --target {device.board}" if device.board in shipped("targets") else
                          f"flash it to {name}; or name this board with --board", step="probe")
    software = rest.partition("+")[2]
    if software and device.l4t and device.jetpack != software:
        raise DeployError(f"the bundle is for {software}, {device.host} has L4T {device.l4t}"
                          + (f" ({device.jetpack})" if device.jetpack else ""), where=where,
                          why="its engine recipes are for the TensorRT version of that JetPack",
                          fix=f"build it with --target {name}+{device.jetpack}" if device.jetpack else
                          f"install {software} on the board", step="probe")
