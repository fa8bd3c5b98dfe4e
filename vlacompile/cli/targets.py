"""`vlacompile targets [NAME]`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from vlacompile.cli.listing import add_name, print_one
from vlacompile.cli.terminal import Terminal

SUMMARY = "list the targets (hosts and boards), or print one"
DESCRIPTION = """List the targets (hardware that a bundle can be compiled for), or print one with
every value and its source. A board runs in one of its power modes, with one of
the known JetPack releases: NAME@MODE+SOFTWARE. TOPS are dense and of the GPU
alone; a board's rates are modelled."""
EPILOG = """examples:
  vlacompile targets
  vlacompile targets orin-nano-8gb
  vlacompile targets orin-nano-8gb@15w+jetpack-7.2

next: `vlacompile build SOURCE --target NAME -o OUT.vlab`"""
PADDING = {"box": None, "pad_edge": False, "header_style": "bold", "padding": (0, 2, 0, 0)}


def add_arguments(parser) -> None:
    add_name(parser, "target")


def run(args, terminal: Terminal) -> None:
    from vlacompile.files.toml import shipped
    from vlacompile.hardware.target import SOFTWARE, load_target, modes_of

    if args.name is not None:
        target = load_target(args.name)
        document = asdict(target) | _derived(target)
        terminal.show(document, lambda console: print_one(console, document))
        return
    targets = {name: load_target(name) for name in shipped("targets")}
    modes = {name: modes_of(name) for name in targets}
    rows = [asdict(t) | _derived(t) | {"modes": [m.name for m in modes[n]]} for n, t in targets.items()]
    software = list(shipped(SOFTWARE))
    terminal.show({"targets": rows, "software": software}, lambda console: _print(console, targets, modes, software))


def _derived(target) -> dict:
    """Values derived from a board's facts."""
    if target.board is None:
        return {}
    gpu, power = target.board.gpu, target.power
    return {"derived": {"gpu_tops_fp16": power.tops("fp16", gpu), "gpu_tops_int8": power.tops("int8", gpu),
                        "dram_gbps": target.power.dram_gbps(target.board.memory),
                        "usable_bytes": target.board.memory.usable_bytes}}


def _print(console: Console, targets: dict, modes: dict, software: list[str]) -> None:
    table = Table(**PADDING)
    table.add_column("name", no_wrap=True)
    table.add_column("description")
    for name, target in targets.items():
        if target.board is None:
            table.add_row(name, target.description)
    console.print(table)
    table = Table(**PADDING)
    for title, justify in (("board @ mode", "left"), ("SMs", "right"), ("MHz", "right"), ("FP16 TOPS", "right"),
                           ("INT8", "right"), ("GB/s", "right"), ("usable MB", "right")):
        table.add_column(title, justify=justify, no_wrap=True)
    for name, target in targets.items():
        for i, mode in enumerate(modes[name]):
            default = mode.name == target.power.name
            table.add_row(f"{name if i == 0 else ' ' * len(name)}@{mode.name}{' *' if default else ''}", str(mode.sms),
                          f"{mode.gpu_mhz:g}", f"{mode.tops('fp16', target.board.gpu):.1f}",
                          f"{mode.tops('int8', target.board.gpu):.1f}",
                          f"{mode.dram_gbps(target.board.memory):.0f}",
                          f"{target.board.memory.usable_bytes / 1e6:.0f}" if i == 0 else "")
    console.print("\nBoards with a GPU, nothing measured on them; TOPS dense, GPU only", style="bold")
    console.print(table)
    console.print(f"* default mode. Software: {', '.join(software)}.\n"
                  "Example: orin-nano-8gb@15w+jetpack-7.2")
