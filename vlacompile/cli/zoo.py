"""`vlacompile zoo [NAME]`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vlacompile.cli.terminal import Terminal
from vlacompile.zoo.names import PREFIX, SIZES, dashed, module_names, parse
from vlacompile.zoo.recorded import recorded
from vlart.errors import UsageError

SUMMARY = "list the systems of the survey, which need no checkpoint"
DESCRIPTION = """List the systems of the survey of vision-language-action models that this
project contains, or print one with its variants: sources, licences, parameters,
loops and what is cached while the instruction stays. Each is a policy with
random weights at its real size, so that its stages, memory and latency on a
board are known before there is a checkpoint. Give it as SOURCE to any verb:
zoo:NAME, or zoo:NAME@tiny for small widths with every structural constant kept.

A reconstruction was written from a publication without public code; what was
assumed stands with it, and in the plan, the bundle and the report."""
EXAMPLE = dashed(module_names()[0])
EPILOG = f"""examples:
  vlacompile zoo
  vlacompile zoo {EXAMPLE}
  vlacompile plan zoo:{EXAMPLE} --target orin-nano-8gb --no-weights
  vlacompile build zoo:{EXAMPLE}@tiny -o {EXAMPLE}.vlab

next: `vlacompile plan zoo:NAME --target BOARD --no-weights`"""


def add_arguments(parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a system or a variant of one, without `zoo:`")


def run(args, terminal: Terminal) -> None:
    name = None if args.name is None else _name(args.name)
    with terminal.phases() as phases:
        phases("load the systems")
        from vlacompile.zoo import catalogue

        found = catalogue.entries() if name is None else [catalogue.find(name)]
    if name is None:
        by_system: dict[int, list] = {}
        for entry in found:
            by_system.setdefault(entry.system.number, []).append(entry)
        rows = [_row(of) for of in by_system.values()]
        terminal.show({"systems": rows}, lambda console: _print_all(console, rows))
        return
    entry = found[0]
    whole = name == dashed(entry.module)
    row = _row([e for e in catalogue.entries_of(entry.module) if whole or e == entry])
    terminal.show(row, lambda console: _print_one(console, row))


def _name(text: str) -> str:
    """Raises UsageError for a size, SourceError for a system that there is not: before PyTorch is imported."""
    name, size = parse(text)
    if size:
        raise UsageError(f"{text} is a source", where="vlacompile zoo NAME", why=f"@{size} is a size of a SOURCE",
                         fix=f"`vlacompile zoo {name}`, or `vlacompile plan {PREFIX}{name}@{size}`")
    return name


def _row(entries: list) -> dict:
    """entries: variants of one system."""
    system, name = entries[0].system, dashed(entries[0].module)
    return {"name": name, "system": system.title, "number": system.number, "year": system.year,
            "kind": "reconstruction" if system.is_reconstruction else "original",
            "variants": [_variant(e) for e in entries], "architecture": system.architecture,
            "licence_of_code": system.code or "none published",
            "licence_of_weights": system.weights or "none published",
            "takes_weights": system.checkpoint is not None, "sizes": list(SIZES),
            "assumptions": list(system.assumptions),
            "published": [{"what": p.what, "value": p.value, "unit": p.unit, "conditions": p.conditions,
                           "source": p.source} for p in system.published]}


def _variant(entry) -> dict:
    """parameters, iterations, cached stages and share: null where no plan is recorded."""
    system, found = entry.system, recorded(entry.name)
    said = dict(zip(system.variants or ("",), system.says, strict=False)).get(entry.variant, "")
    return {"name": entry.name, "variant": entry.variant, "what": said,
            "parameters": found and found.parameters, "iterations": found and list(found.loops),
            "cached_per_task": found and list(found.per_task), "cached_share": found and found.cached}


def _print_all(console: Console, rows: list[dict]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("name", "system", "year", "kind", "variants"):
        table.add_column(title, no_wrap=title in ("name", "year", "kind"))
    for r in rows:
        table.add_row(r["name"], r["system"], str(r["year"]), r["kind"],
                      ", ".join(v["variant"] for v in r["variants"]))
    console.print(table)
    console.print(f"\n{len(rows)} systems. The first variant is that of {PREFIX}NAME, another is {PREFIX}NAME-VARIANT.")
    console.print("`vlacompile zoo NAME` has licences, parameters, loops and what is cached.")


def _print_one(console: Console, row: dict) -> None:
    console.print(f"{row['name']}: {row['system']} ({row['year']}), {row['kind']}", style="bold")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row("architecture", row["architecture"])
    grid.add_row("code", row["licence_of_code"])
    grid.add_row("weights", row["licence_of_weights"] + (", read by --weights" if row["takes_weights"] else ""))
    for v in row["variants"]:
        grid.add_row(f"{PREFIX}{v['name']}", "; ".join(filter(None, (v["what"], _planned(v)))))
    for i, text in enumerate(row["assumptions"]):
        grid.add_row("" if i else "assumed", text)
    for i, p in enumerate(row["published"]):
        grid.add_row("" if i else "published",
                     f"{p['what']} {p['value']:g} {p['unit']}, {p['conditions']} ({p['source']})")
    console.print(grid)


def _planned(variant: dict) -> str:
    if variant["parameters"] is None:
        return f"`vlacompile plan {PREFIX}{variant['name']} --no-weights` says parameters, loops and stages"
    loops = ", ".join(str(n) for n in variant["iterations"])
    cached, share = ", ".join(variant["cached_per_task"]), variant["cached_share"]
    of = "" if share is None else f" ({100 * share:.0f} % of a replan)"
    return (f"{variant['parameters'] / 1e6:,.0f} M parameters; " + (f"loop of {loops} steps" if loops else "no loop")
            + "; " + (f"cached per task: {cached}{of}" if cached else "nothing is cached per task"))
