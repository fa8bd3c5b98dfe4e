"""`vlacompile replay LOG BUNDLE`."""

from __future__ import annotations

from rich.console import Console

from vlacompile.cli.arguments import STAND_IN, add_stand_in
from vlacompile.cli.terminal import Terminal
from vlart.arguments import add_native_code, thread_count

SUMMARY = "replay a recording on a bundle and compare every bit"
DESCRIPTION = """Give a bundle what a recording says that the policy was given, call by call, and
compare every chunk and every action that comes out with the recorded one, bit
for bit. What depended on time then is made to happen where it happened: a
deadline that passed before a stage, a chunk that came at a tick. Exit code 10
if a bit differs; the first value that does is named, with its index and both
numbers.

Another bundle than the recorded one is refused, unless --other-bundle says that
the two are to be compared. With --against, both bundles are given the recording
side by side, and after each step all values that their stages hand on are
compared, in the order in which they are computed: the first that differs names
the stage with which the two part."""
EPILOG = """examples:
  vlacompile replay run.vlog light.vlab
  vlacompile replay run.vlog light-int8.vlab --other-bundle --against light.vlab

next: `vlacompile view LOG` shows a recording, `vlacompile export` hands it on"""


def add_arguments(parser) -> None:
    parser.add_argument("log", metavar="LOG", help="a recording: what `--record FILE` or a Recorder wrote")
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--other-bundle", action="store_true",
                        help="BUNDLE is another one than was recorded: show where the two part")
    parser.add_argument("--against", metavar="ORIGINAL",
                        help="a bundle whose values, stage by stage, are compared with those of BUNDLE")
    parser.add_argument("--threads", type=thread_count, default=0, metavar="N",
                        help="threads of the inference engine, as they were then (default: 0, its own choice)")
    add_stand_in(parser)
    add_native_code(parser)


def run(args, terminal: Terminal) -> None:
    from vlart.recording.log import Log
    from vlart.recording.replayed import replay

    with terminal.phases() as phases:
        phases("read the recording")
        log = Log(args.log)
        phases(f"replay {log.info.events} events")
        found = replay(log, args.bundle, other_bundle=args.other_bundle, against=args.against, threads=args.threads,
                       stand_in=args.stand_in, native_code=args.native_code)
    terminal.show(found.as_dict() | {"stand_in": args.stand_in}, lambda console: _print(console, found, args.stand_in))
    found.require()


def _print(console: Console, found, stand_in: bool) -> None:
    console.print(f"{found.steps} steps replayed; compared bit for bit: {found.chunks} chunks, {found.actions} actions",
                  soft_wrap=True)
    if found.skipped:
        console.print(f"{found.skipped} of {found.events} events not replayed: no known state precedes them",
                      soft_wrap=True)
    if any(found.lost) or found.torn:
        console.print(f"missing in the recording: {found.lost[0]} events, {found.lost[1]} blocks; {found.torn} torn",
                      soft_wrap=True)
    if found.cut_bytes:
        console.print(f"the recording was cut off: {found.cut_bytes} bytes of its end are not there", soft_wrap=True)
    if found.clock.changes:
        console.print(found.clock.words(), soft_wrap=True)
    if stand_in:
        console.print(STAND_IN)
    if found.equal:
        console.print("equal to the bit")
