"""`vlacompile export LOG`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from vlacompile.cli.terminal import Terminal
from vlart.arguments import positive
from vlart.errors import UsageError

SUMMARY = "hand a recording on: MCAP, Rerun, a LeRobot dataset"
DESCRIPTION = """Write a recording in a format that other programs read: what was observed, the
chunk that was predicted for each replan, and the actions that were executed, on
one time line.

  --mcap FILE     JSON messages and PNG images, which Foxglove shows as it is
  --rerun FILE    a recording of Rerun, with a layout (pip install
                  'vlacompile[rerun]')
  --lerobot DIR   a dataset (v3.0) to train on again: a row per executed action,
                  with the newest observation, which is new where
                  "observation.fresh" is true

The first and the last need pip install 'vlacompile[recordings]'."""
EPILOG = """examples:
  vlacompile export run.vlog --mcap run.mcap
  vlacompile export run.vlog --rerun run.rrd --lerobot datasets/run --fps 30

next: `vlacompile build SOURCE --calibrate datasets/run` calibrates on it"""


def add_arguments(parser) -> None:
    parser.add_argument("log", metavar="LOG", help="a recording: what `--record FILE` or a Recorder wrote")
    parser.add_argument("--mcap", metavar="FILE", help="an MCAP file")
    parser.add_argument("--rerun", metavar="FILE", help="a file of Rerun (.rrd)")
    parser.add_argument("--lerobot", metavar="DIR", help="a directory, which must not exist")
    parser.add_argument("--fps", type=positive, metavar="HZ",
                        help="with --lerobot: the rate of the actions (default: as they were executed)")


def run(args, terminal: Terminal) -> None:
    if not (args.mcap or args.rerun or args.lerobot):
        raise UsageError("no format is named", where="vlacompile export", why="a recording is handed on in three",
                         fix="give --mcap FILE, --rerun FILE or --lerobot DIR")
    from vlacompile.export.told import missing, require_apart
    from vlart.recording.log import Log

    require_apart(args.log, {"--mcap": args.mcap, "--rerun": args.rerun, "--lerobot": args.lerobot})
    written = {}
    with terminal.phases() as phases:
        phases("read the recording")
        log = Log(args.log)
        if args.mcap:
            from vlacompile.export.to_mcap import export_mcap

            phases("write MCAP")
            written["mcap"] = export_mcap(log, Path(args.mcap))
        if args.rerun:
            from vlacompile.export.to_rerun import export_rerun

            phases("write Rerun")
            written["rerun"] = export_rerun(log, Path(args.rerun))
        if args.lerobot:
            from vlacompile.export.to_lerobot import export_lerobot

            phases("write the LeRobot dataset")
            written["lerobot"] = export_lerobot(log, Path(args.lerobot), args.fps)
    document = {"recording": args.log, "events": log.info.events, "content": log.full, "missing": missing(log),
                **log.clock.as_dict(), "written": written}
    terminal.show(document, lambda console: _print(console, document, log.clock.words()))


def _print(console: Console, document: dict, clock: str) -> None:
    for found in document["written"].values():
        more = f", {found['total_episodes']} episodes, {found['total_frames']} rows at {found['fps']} Hz" \
            if "fps" in found else ""
        console.print(f"{found['path']}: {found['bytes'] / 1e6:.2f} MB{more}", soft_wrap=True)
        for name in found["left_out"]:
            console.print(f"  not in it: {name}", soft_wrap=True)
    if clock:
        console.print(clock, soft_wrap=True)
    if not document["content"]:
        console.print("recorded without content: what was observed is not in it", soft_wrap=True)
    if document["missing"]:
        console.print("missing in the recording: " + ", ".join(
            f"{count} {what.replace('_', ' ')}" for what, count in document["missing"].items()), soft_wrap=True)
