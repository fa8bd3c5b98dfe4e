"""The part of `vlacompile flash` that measures a board and writes its record."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli.terminal import Terminal
from vlart.arguments import positive

PADDING = {"box": None, "pad_edge": False, "header_style": "bold", "padding": (0, 2, 0, 0)}


def add_arguments(parser) -> None:
    found = parser.add_argument_group("a board's first day (docs/boards.md)")
    found.add_argument("--acceptance", metavar="FILE",
                       help="then time every stage and replan there, with clocks, rails, temperature and memory, "
                            "compare with the board model, and write one JSON; for a folder (profiles/boards/): "
                            "FOLDER/BOARD/HASH-MODE.json")
    found.add_argument("--passes", type=positive, metavar="N",
                       help="passes over the golden frames that are timed (default: 50)")
    found.add_argument("--measured", metavar="ANSWERS",
                       help="instead of a HOST: what `make board-acceptance` wrote on the board itself")


def require_sense(args) -> None:
    """Raises UsageError."""
    from vlart.errors import UsageError

    odd = next((o for o in ("passes", "measured") if getattr(args, o) is not None and args.acceptance is None), None)
    if odd is not None:
        raise UsageError(f"--{odd} without --acceptance", where="vlacompile flash", why="it is part of a measurement",
                         fix="add --acceptance FILE")
    if args.acceptance is not None and (args.fleet is not None or args.bundle is None):
        raise UsageError("--acceptance measures one bundle on one board", where="vlacompile flash",
                         why="there is a fleet, or no bundle", fix="vlacompile flash BUNDLE HOST --acceptance FILE")
    if args.measured is not None and (args.host is not None or args.passes is not None):
        raise UsageError("--measured is of a board that has measured already", where="vlacompile flash",
                         why="a host or --passes is given as well",
                         fix="vlacompile flash BUNDLE --acceptance FILE --measured ANSWERS")


def measure_there(bundle, done, connection, args, phases):
    """The record of the board that `done` was flashed to."""
    from vlacompile.deploy.acceptance import PASSES, measure

    try:
        measured = measure(connection, done.policy, done.slot, done.said, args.passes or PASSES, phases)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"slot {done.slot} is current, and was not measured; the same command measures it"
                                ) from None
    return _record(bundle, measured, args, phases)


def of_answers(args, terminal: Terminal) -> None:
    """The record of a board that measured by itself."""
    from vlacompile.deploy.acceptance import read_measured
    from vlart.bundle.directory import check_files, read_bundle

    with terminal.phases() as phases:
        phases("check the bundle's files")
        bundle = read_bundle(args.bundle)
        check_files(bundle)
        phases("read what the board measured")
        found = _record(bundle, read_measured(Path(args.measured)), args, phases)
    terminal.show({"record": str(found[1]), "acceptance": asdict(found[0])},
                  lambda console: print_record(console, *found))


def _record(bundle, measured, args, phases):
    from vlacompile.profile.acceptance import compose
    from vlacompile.profile.record_file import place_of, write_record_or_keep

    phases("compare with the board model")
    record, path = compose(bundle, measured), Path(args.acceptance)
    if path.is_dir() or args.acceptance.endswith("/"):
        path = place_of(record, path)
    write_record_or_keep(record, path)
    return record, path


def print_record(console: Console, record, path: Path) -> None:
    from vlacompile.profile.board_record import kind_of

    mode = record.device.power_mode or "power mode unknown"
    console.print(f"\n{record.bundle.name} on {record.device.target}, {mode}", style="bold", soft_wrap=True)
    console.print(record.label, style="bold red" if record.kind != "board" else "bold", soft_wrap=True)
    if record.kind != "board":
        console.print(f"({kind_of(record)[1]})", soft_wrap=True)
    table = Table(**PADDING)
    table.add_column("ms", overflow="fold")
    for title in ("times", "measured", "p95", "modelled", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    rows = [(s.name + (f", {s.iterations} iterations" if s.iterations > 1 else ""), s.measured, s.modelled_ms)
            for s in record.stages]
    m = record.modelled
    rows += [("replan, same instruction", record.same, m and m.same_ms),
             ("replan, new instruction", record.new, m and m.new_ms)]
    for name, times, modelled in rows:
        told = "" if modelled is None else f"{modelled:.3f}"
        if times is None:
            table.add_row(name, "not run", "", "", told, "")
        else:
            table.add_row(name, str(times.count), f"{times.median_ms:.3f}", f"{times.p95_ms:.3f}", told,
                          f"{times.median_ms / modelled:.2f}" if modelled else "")
    console.print(table)
    if m is None:
        console.print(f"nothing is modelled: the target {record.device.target} has no rates", soft_wrap=True)
    else:
        error = "" if m.error_factor is None else f", nine of ten within a factor of {m.error_factor:.2f}"
        console.print(f"modelled for {m.target}{error}", soft_wrap=True)
        console.print("ratio: measured over modelled", soft_wrap=True)
    console.print(f"the device: {_sensed(record.sensors)}")
    console.print(f"written: {path}", soft_wrap=True)


def _sensed(s) -> str:
    """A line on clocks, rails, temperature, throttling and memory."""
    parts = [f"{name} {r.median:.0f} MHz" for name, r in (("GPU", s.gpu_mhz), ("memory", s.emc_mhz), ("CPU", s.cpu_mhz))
             if r is not None]
    parts += [f"{rail} {r.median:.1f} W (idle {s.idle_watts[rail]:.1f})" if rail in s.idle_watts else
              f"{rail} {r.median:.1f} W" for rail, r in s.watts.items()]
    parts += [] if s.most_celsius is None else [f"at most {s.most_celsius:.0f} C"]
    parts += [] if s.most_memory_mb is None else [f"{s.most_memory_mb:.0f} MB in use"]
    if not s.watts and s.gpu_mhz is None:
        return ", ".join(["no clocks, no rails", *parts])
    parts += [f"{what}: {count}" for what, count in s.throttled.items()] or ["not throttled"]
    return ", ".join(parts)
