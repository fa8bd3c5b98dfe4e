"""`vlacompile view BUNDLE` and `vlacompile view LOG`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

from rich.console import Console

from vlacompile.cli.terminal import Terminal
from vlart.errors import ConfigError, UsageError

SUMMARY = "look at a bundle in the browser, also while it runs, or at a recording"
DESCRIPTION = """BUNDLE: open its report in a browser. With --log, the page also shows what runs
now: the stages with their times, the queue, the newest chunk beside what was
executed, the cameras as the policy sees them, the router. LOG is the recording
that the running program writes (`run`, `serve` and vlart-run take `--record`;
in Python and C a Recorder); the page reads that file and asks nothing of the
program. It is for this machine alone, and changes nothing. Ctrl-C ends it.

LOG: open a recording in Rerun's viewer: the cameras, the actions that were
predicted for each tick beside those that were executed, and the time of every
replan, on one time line. Needs pip install 'vlacompile[rerun]'. Without a
display, --save writes the file that the viewer opens elsewhere. The viewer is
Rerun's own program; it reports its use to its makers unless you say `rerun
analytics disable`."""
EPILOG = """examples:
  vlacompile view light.vlab
  vlacompile serve light.vlab --record run.vlog
  vlacompile view light.vlab --log run.vlog
  vlacompile view run.vlog
  vlacompile view run.vlog --save run.rrd

next: `vlacompile replay LOG BUNDLE` computes a recording again"""
BOARDS = ("orin-nano-8gb", "orin-nx-16gb", "agx-orin-64gb")


def add_arguments(parser) -> None:
    parser.add_argument("what", metavar="WHAT", help="a NAME.vlab directory, or a recording")
    parser.add_argument("--log", metavar="FILE", help="of a bundle: the recording that is being written; it may begin "
                                                      "later")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the page (default: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    parser.add_argument("--save", metavar="FILE", help="of a recording: write what the viewer shows (.rrd) instead of "
                                                       "opening it")


def run(args, terminal: Terminal) -> None:
    if Path(args.what).is_dir():
        if args.save is not None:
            raise UsageError("--save is of a recording", where="vlacompile view", why=f"{args.what} is a directory",
                             fix=f"vlacompile report {args.what} -o FILE.html writes its page")
        _bundle(args, terminal)
        return
    if args.log is not None:
        raise UsageError("--log is of a bundle", where="vlacompile view", why=f"{args.what} is no directory",
                         fix="vlacompile view BUNDLE --log FILE, or vlacompile view FILE")
    _recording(args, terminal)


# A bundle

def _bundle(args, terminal: Terminal) -> None:
    from vlart.bundle.directory import one_backbone, read_bundle

    bundle = one_backbone(read_bundle(args.what), None)
    with terminal.phases() as phases:
        phases("write the page")
        from vlacompile.profile.kernel_work import work_of
        from vlacompile.profile.modelled_bundle import modelled_for
        from vlacompile.profile.roofline import WhatIf
        from vlacompile.report.page import page
        from vlacompile.view.live import Live
        from vlacompile.view.server import panel, serving

        found = modelled_for(bundle, BOARDS, WhatIf())
        text = page(bundle, work_of(bundle), found["boards"], found["targets"], [], None,
                    live=panel() if args.log else "")
    live = None if args.log is None else Live(Path(args.log), bundle)
    try:
        with serving(text, live, args.port) as server:
            terminal.now({"url": server.url}, lambda console: console.print(
                f"{server.url}  (Ctrl-C ends it)", soft_wrap=True))
            if not args.no_browser:
                webbrowser.open(server.url)
            threading.Event().wait()
    except OverflowError as error:
        raise UsageError(f"--port {args.port} is no port", where="vlacompile view", why=str(error),
                         fix="a number from 0 to 65535") from error
    except OSError as error:
        raise ConfigError("the page cannot be served", where=f"port {args.port}", why=str(error.strerror or error),
                          fix="give another --port, or none") from error


# A recording

def _recording(args, terminal: Terminal) -> None:
    from vlacompile.export.packages import require
    from vlacompile.export.to_rerun import export_rerun
    from vlacompile.export.told import require_apart
    from vlart.recording.log import Log

    require("rerun", "rerun", "view")
    require_apart(args.what, {"--save": args.save})
    log = Log(args.what)
    if args.save is None and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError("there is no display to open the viewer on", where="vlacompile view",
                          why="neither DISPLAY nor WAYLAND_DISPLAY is set",
                          fix=f"vlacompile view {args.what} --save FILE.rrd, and open that where there is one: rerun "
                          "FILE.rrd")
    with terminal.phases() as phases:
        phases("write what the viewer shows")
        out = Path(args.save) if args.save else Path(tempfile.mkdtemp(prefix="vlacompile-")) / "recording.rrd"
        written = export_rerun(log, out)
    if args.save is None:
        subprocess.Popen([sys.executable, "-m", "rerun", str(out)], start_new_session=True)
    terminal.show({"recording": args.what, **log.clock.as_dict(), "written": written, "opened": args.save is None},
                  lambda console: _print(console, written, args.save is None, log.clock.words()))


def _print(console: Console, written: dict, opened: bool, clock: str) -> None:
    console.print(f"opened in Rerun: {written['path']}" if opened else
                  f"{written['path']}: {written['bytes'] / 1e6:.2f} MB; open it with: rerun {written['path']}",
                  soft_wrap=True)
    if clock:
        console.print(clock, soft_wrap=True)
