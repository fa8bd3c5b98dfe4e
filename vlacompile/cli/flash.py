"""`vlacompile flash BUNDLE HOST`, `--fleet FILE`, `--status HOST`, `--rollback HOST [POLICY]`."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli import acceptance
from vlacompile.cli.terminal import Terminal
from vlacompile.deploy import ROOT
from vlart.arguments import UNCALIBRATED, add_native_code, positive

SUMMARY = "install a bundle on a device: transfer, self-test, switch to it"
DESCRIPTION = """Send a bundle to a device over ssh and make it the current one there if it
passes its self-test on that device. Only changed files are transferred, an
interrupted transfer resumes, and every file's hash is checked on arrival. A
device has two slots (A/B) per policy: the new bundle goes into the idle slot,
TensorRT engines are built on the device if the plan has any, the golden frames
are replayed, and only then is `current` switched, atomically. If anything
interrupts this, the old slot stays current; run the same command to continue.

ssh is OpenSSH with your configuration, keys and known hosts. The device needs
a POSIX shell and the tools of its system (coreutils, util-linux, findutils,
grep, sed), but no Python. ONNX Runtime's library is sent along if the bundle's
stages need it."""
EPILOG = """examples:
  vlacompile flash light.vlab robot@arm-left
  vlacompile flash light.vlab --fleet arms.toml
  vlacompile flash --status robot@arm-left
  vlacompile flash --rollback robot@arm-left
  vlacompile flash nano.vlab robot@nano --acceptance profiles/boards/

a fleet file has one [[host]] table per device: name = "robot@arm-left" and,
where they differ from the command's options, root, ort, tensorrt, tvm and board

next: the robot's program opens ROOT/policies/NAME/current/bundle.vlab
(resolve `current` once, when it starts), with current/bin/libonnxruntime.so.*"""
DAMAGED = {"current": "`current` is no link to a slot; flash a bundle again",
           "release": "its release counter is damaged; see the security page, On a device"}
PADDING = {"box": None, "pad_edge": False, "header_style": "bold", "padding": (0, 2, 0, 0)}
NOTHING_LOST = "the current slot is unchanged and the files received are kept; run the same command to continue"


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a NAME.vlab directory")
    parser.add_argument("host", metavar="HOST", nargs="?",
                        help="the device, as given to ssh: user@name, or an alias from its configuration")
    parser.add_argument("--fleet", metavar="FILE", help="a TOML file that lists devices, instead of HOST")
    parser.add_argument("--status", metavar="HOST", help="print what is installed on a device")
    parser.add_argument("--check", action="store_true",
                        help="with --status: read every file of the slots again, which takes a while")
    parser.add_argument("--rollback", nargs="+", metavar=("HOST", "POLICY"),
                        help="switch back to the other slot (of POLICY, if there are several)")
    parser.add_argument("--root", default=ROOT, metavar="DIR",
                        help=f"installation directory on the device (default: {ROOT})")
    parser.add_argument("--ort", metavar="FILE",
                        help="ONNX Runtime's library on the device (default: a copy is sent along)")
    parser.add_argument("--ort-library", metavar="FILE",
                        help="ONNX Runtime's library to send, on this machine (default: the installed one for the same "
                             "processor, build/ARCH for others, else the one on the device)")
    parser.add_argument("--tensorrt", metavar="DIR", help="directory of libvlart_tensorrt*.so on the device")
    parser.add_argument("--tvm", metavar="DIR",
                        help="directory of libtvm_*.so on the device, for stages compiled by TVM")
    parser.add_argument("--runtime", metavar="DIR",
                        help="directory on this machine with vlart-run and vlart-build for the device")
    parser.add_argument("--board", metavar="NAME", help="which board the device is, if its device tree does not say")
    parser.add_argument("--unit", action="store_true",
                        help="also install a systemd user unit that repeats the self-test when the device starts")
    parser.add_argument("--keep", type=positive, default=2, metavar="N",
                        help="number of bundles whose files are kept on the device (default: 2)")
    parser.add_argument("--uncalibrated", action="store_true", help=UNCALIBRATED)
    add_native_code(parser)
    parser.add_argument("--ssh-config", metavar="FILE", help="ssh configuration to use instead of ~/.ssh/config")
    acceptance.add_arguments(parser)


def run(args, terminal: Terminal) -> None:
    from vlart.errors import UsageError

    acceptance.require_sense(args)
    if args.measured is not None:
        acceptance.of_answers(args, terminal)
        return
    asked = [args.bundle is not None, args.status is not None, args.rollback is not None]
    wrong = (args.bundle and (args.host is None) == (args.fleet is None)) or (args.check and args.status is None)
    if sum(asked) != 1 or wrong or len(args.rollback or ()) > 2:
        raise UsageError("no bundle and host are given" if not any(asked) else "give one bundle, and one host or fleet",
                         where="vlacompile flash", why="it installs a bundle, or takes --status or --rollback alone",
                         fix="see `vlacompile flash --help`")
    try:
        if args.status is not None:
            _status(args, terminal)
        elif args.rollback is not None:
            _roll_back(args, terminal)
        else:
            _flash(args, terminal)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(str(interrupt) or NOTHING_LOST) from None


def _options(args, terminal: Terminal):
    from vlacompile.deploy.flash import Options

    return Options(args.root, args.ort, args.tensorrt, args.tvm, args.board,
                   Path(args.runtime) if args.runtime else None,
                   Path(args.ort_library) if args.ort_library else None, args.keep,
                   args.unit, Path(args.ssh_config) if args.ssh_config else None, batch=not terminal.err.is_terminal,
                   uncalibrated=args.uncalibrated, native_code=args.native_code)


def _flash(args, terminal: Terminal) -> None:
    from vlacompile.deploy.flash import connect, flash
    from vlacompile.deploy.fleet import flash_fleet, read_fleet, require_all
    from vlart.bundle.directory import check_files, read_bundle
    from vlart.bundle.precision_record import require_calibrated

    options, bundle = _options(args, terminal), read_bundle(args.bundle)
    require_calibrated(bundle, args.uncalibrated)
    if args.fleet is None:
        with terminal.phases() as phases:
            phases("check the bundle's files")
            check_files(bundle)
            phases(f"connect to {args.host}")
            with connect(args.host, options) as connection:
                done = flash(bundle, connection, options, phases)
                found = acceptance.measure_there(bundle, done, connection, args, phases) if args.acceptance else None
        told = {} if found is None else {"record": str(found[1]), "acceptance": asdict(found[0])}
        terminal.show(asdict(done) | told, lambda console: _print_one(console, done, found))
        return
    fleet, words = read_fleet(Path(args.fleet)), threading.Lock()
    check_files(bundle)

    def progress(host: str, text: str) -> None:
        with words:
            terminal.err.print(f"  {host:<24.24}  {text}"[:80], soft_wrap=True)
    found = flash_fleet(bundle, fleet, options, progress)
    terminal.show({"hosts": {host: _document(f) for host, f in found.items()}},
                  lambda console: _print_fleet(console, found))
    require_all(found)


def _document(found) -> dict:
    return found.as_dict() if isinstance(found, Exception) else asdict(found)


def _print_one(console: Console, done, found) -> None:
    console.print(f"\n{done.policy} on {done.host} ({done.device})", style="bold", soft_wrap=True)
    if done.current:
        console.print(f"slot {done.slot} was current already; its self-test passed again")
    else:
        before = f"previously slot {done.before}" if done.before else "the first install"
        console.print(f"slot {done.slot} is now current; {before}")
        console.print(f"sent {done.sent / 1e6:.1f} of {done.bytes / 1e6:.1f} MB in {done.seconds:.1f} s; the device "
                      f"had the rest")
    console.print(done.said, soft_wrap=True)
    if done.unit:
        console.print(f"unit {done.unit}: a robot's own unit should name it in Requires=, After= and PartOf=",
                      soft_wrap=True)
        if not done.lingers:
            console.print("it starts at the first log-in; there, `sudo loginctl enable-linger $USER` lets it start "
                          "with the "
                          "device", soft_wrap=True)
    if found is not None:
        acceptance.print_record(console, *found)


def _print_fleet(console: Console, found: dict) -> None:
    table = Table(**PADDING)
    for title, justify in (("host", "left"), ("device", "left"), ("slot", "left"), ("sent MB", "right"), ("s", "right"),
                           ("", "left")):
        table.add_column(title, justify=justify, overflow="fold")
    for host, f in found.items():
        if isinstance(f, Exception):
            table.add_row(host, "", "", "", "", f"FAILED: {f.what}", style="bold red")
        else:
            table.add_row(host, f.device, f.slot, f"{f.sent / 1e6:.1f}", f"{f.seconds:.1f}",
                          "already current" if f.current else "now current")
    console.print()
    console.print(table)


def _roll_back(args, terminal: Terminal) -> None:
    from vlacompile.deploy.flash import connect, roll_back

    host, name = args.rollback[0], args.rollback[1] if len(args.rollback) > 1 else None
    with terminal.phases() as phases:
        phases(f"connect to {host}")
        with connect(host, _options(args, terminal)) as connection:
            policy, slot = roll_back(connection, name, args.keep, phases)
    terminal.show({"host": host, "policy": policy, "slot": slot},
                  lambda console: console.print(f"{policy} on {host}: slot {slot} is current again", soft_wrap=True))


def _status(args, terminal: Terminal) -> None:
    from vlacompile.deploy.flash import connect
    from vlacompile.deploy.status import read_status

    with connect(args.status, _options(args, terminal), lock=False) as connection:
        status = read_status(connection, args.board, args.check)
    terminal.show(asdict(status), lambda console: _print_status(console, status))


def _print_status(console: Console, status) -> None:
    console.print(f"{status.device.host}: {status.device.words}", style="bold", soft_wrap=True)
    console.print(f"{status.device.root}, {status.device.free_bytes / 1e6:.0f} MB free", soft_wrap=True)
    if status.device.signers:
        console.print(f"takes signed bundles only; signers {status.device.signers[:12]}")
    if status.flashing:
        console.print(f"being flashed by {status.flashing}", soft_wrap=True)
    if not status.policies:
        console.print("no policy is installed")
        return
    table = Table(**PADDING)
    for title in ("policy", "slot", "content", "self-test passed", ""):
        table.add_column(title, overflow="fold")
    for p in status.policies:
        for slot in p.slots:
            table.add_row(p.name, slot.name, slot.identity[:12], slot.passed or "not yet",
                          ", ".join(["current"] * slot.current + [f"DAMAGED: {slot.damaged}"] * bool(slot.damaged)))
    console.print(table)
    for p in status.policies:
        for what in p.damaged:
            console.print(f"{p.name}: {DAMAGED[what]}", style="bold red", soft_wrap=True)
        release = "" if p.release is None else f", release {p.release}"
        console.print(f"\n{p.name}{release}" + (f", unit {p.unit}" if p.unit else ""), style="bold", soft_wrap=True)
        for line in p.history:
            when, word, slot, identity = line.split(" ")
            console.print(f"  {when}  {word} slot {slot}  {identity[:12]}", soft_wrap=True)
