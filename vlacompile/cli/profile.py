"""`vlacompile profile BUNDLE...`, `vlacompile profile --compare A B`."""

from __future__ import annotations

import time
from argparse import BooleanOptionalAction
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import add_what_if, what_if
from vlacompile.cli.terminal import Terminal
from vlart.arguments import add_native_code, positive, thread_count

SUMMARY = "latency, memory, energy: modelled for boards, measured here"
DESCRIPTION = """Latency, memory and energy of a bundle, stage by stage.

With --target they are modelled (a roofline) from the bundle's graphs and a
board's clocks, for any number of boards and power modes, and nothing is run;
the error band comes from published latencies that the model was not fitted to.
With --measure the bundle replans on this machine through libvlart: a new
observation per replan, a new instruction every fifth; -o saves the latencies.
Several bundles are measured in alternating rounds, so that other load on the
machine affects all of them equally, and compared. --compare compares two saved
files. Each difference comes with its p-value: how likely it is to be chance."""
EPILOG = """examples:
  vlacompile profile light.vlab --target orin-nano-8gb
  vlacompile profile light.vlab -t orin-nx-8gb -t orin-nx-16gb --precision int8
  vlacompile profile pick.vlab -t agx-orin-64gb --iterations 5 --cameras 3
  vlacompile profile light.vlab -t orin-nano-8gb --execute 5
  vlacompile profile light.vlab --measure -o profiles/mine.json
  vlacompile profile fp32.vlab int8.vlab -o profiles/
  vlacompile profile --compare before.json after.json

next: `vlacompile report BUNDLE --profile FILE -o report.html` plots it"""
PADDING = {"box": None, "pad_edge": False, "header_style": "bold", "padding": (0, 2, 0, 0)}
EVERY_S = 2.0  # seconds between progress lines


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", nargs="*",
                        help="a NAME.vlab directory; several are measured together")
    add_what_if(parser)
    parser.add_argument("--backbone", metavar="NAME",
                        help="which backbone to use, if there are several (default: the first)")
    parser.add_argument("--measure", action="store_true",
                        help="measure on this machine (the default for several bundles without --target)")
    add_native_code(parser)
    parser.add_argument("--replans", type=positive, default=200, metavar="N", help="replans to measure (default: 200)")
    parser.add_argument("--warm-up", type=thread_count, default=20, metavar="N",
                        help="replans before that, not counted (default: 20)")
    parser.add_argument("--threads", type=thread_count, default=1, metavar="N",
                        help="threads of the inference engine (default: 1; 0: its own choice)")
    parser.add_argument("--power-mode", metavar="MODE",
                        help="on a Jetson with jtop: measure in this mode of nvpmodel, and set it back at the end")
    parser.add_argument("--jetson-clocks", action=BooleanOptionalAction,
                        help="likewise: with clocks pinned, or not (default: as they are)")
    parser.add_argument("-o", "--out", metavar="FILE",
                        help="save the measured latencies as JSON; for a folder (profiles/): FOLDER/TARGET/HASH.json")
    parser.add_argument("--compare", nargs=2, metavar="FILE", help="two files that -o wrote")


def run(args, terminal: Terminal) -> None:
    from vlart.errors import UsageError

    if args.compare:
        _compare(args, terminal)
        return
    measure = args.measure or (len(args.bundle) > 1 and not args.target)
    if not args.bundle or not (measure or args.target):
        raise UsageError("nothing to do" if args.bundle else "no bundle is named", where="vlacompile profile",
                         why="profile models a bundle for boards, measures it here, or compares two saved files",
                         fix="add --target BOARD, --measure, or --compare FILE FILE")
    from vlacompile.profile.modelled_bundle import modelled_for
    from vlart.bundle.directory import one_backbone, read_bundle

    bundles = [one_backbone(read_bundle(b), args.backbone) for b in args.bundle]
    _check_out(args, bundles, measure)
    documents: list[dict] = [{"bundle": str(b.path), "hash": b.hash} for b in bundles]
    found = [modelled_for(b, args.target, what_if(args)) for b in bundles] if args.target else []
    for document, f in zip(documents, found, strict=False):
        document["modelled"] = [as_document(m) for m in f["boards"]] + [as_document(m) for m in f["else"].values()]
        document["band"], document["bands"] = f["bands"].time, asdict(f["bands"])
    measured = _measure(bundles, args, terminal) if measure else ()
    for document, m in zip(documents, measured, strict=False):
        document["measured"] = m.as_dict()

    def show(console: Console) -> None:
        for b, f in zip(bundles, found, strict=False):
            print_modelled(console, b.plan, f)
        for m, b in zip(measured, bundles, strict=False):
            print_measured(console, m, str(b.path), b.plan)
        for m, b in list(zip(measured, bundles, strict=False))[1:]:
            print_together(console, measured[0], m, str(bundles[0].path), str(b.path))
    terminal.show(documents[0] if len(documents) == 1 else {"bundles": documents, "differences": [
        _differences(measured[0], m) for m in measured[1:]]}, show)


def _check_out(args, bundles, measure: bool) -> None:
    """Raises ConfigError, before anything is measured, if -o cannot hold the result."""
    if not args.out:
        return
    from vlart.errors import ConfigError

    why = None
    if not measure:
        why = "nothing is measured, and -o saves measurements"
    elif len(bundles) > 1 and not _is_folder(args.out):
        why = f"{len(bundles)} bundles are measured, and -o is one file"
    elif len({b.hash for b in bundles}) < len(bundles):
        why = "two of the bundles are the same: a folder holds one profile of each"
    if why:
        raise ConfigError("the measurements cannot be saved there", where=f"-o {args.out}", why=why,
                          fix="add --measure, or give a folder (profiles/) and each bundle once")


def _is_folder(out: str) -> bool:
    return out.endswith("/") or Path(out).is_dir()


def as_document(m) -> dict:
    return asdict(m) | {"same_us": m.same, "new_us": m.new, "memory": m.memory, "joules": m.joules,
                        "actions_per_s": m.actions_per_s}


def question_text(question) -> str:
    words = [w for w in (question.precision and f"all layers {question.precision}",
                         question.iterations and f"{question.iterations} iterations of loops",
                         question.cameras and f"{question.cameras} cameras",
                         question.execute and f"h = {question.execute} actions per chunk") if w]
    return ", ".join(words) or "as built"


def print_modelled(console: Console, plan, found: dict) -> None:
    first, factors = found["boards"][0], found["bands"]
    console.print(f"{plan.name}: work of one run of each stage", style="bold", soft_wrap=True)
    table = _table("stage", "iter.", "GFLOP", "weights, MB", "read, MB", "products")
    for s in first.stages:
        table.add_row(s.stage, str(s.iterations), f"{s.operations / 1e9:.4g}", f"{s.weights / 1e6:.2f}",
                      f"{s.read / 1e6:.2f}", str(s.products))
    console.print(table)
    console.print(f"NVIDIA's compiler for SM86 made {factors.kernels[0]:.1f} to {factors.kernels[1]:.1f} kernels per "
                  "matrix product; a loop reads its weights in every iteration", style="dim")
    console.print()
    for m, target in zip(found["boards"], found["targets"], strict=True):
        console.print(f"{plan.name} on {m.target}", style="bold", soft_wrap=True)
        console.print(f"{question_text(found['question'])}; modelled, not measured on a board")
        table = _table("stage", "ms", "between", "arithmetic", "weights", "launches")
        for s in m.stages:
            table.add_row(s.stage, f"{s.total / 1e3:.3f}", between(s.total / 1e3, factors.time, 3),
                          *(f"{s.times * x / 1e3:.3f}" for x in (s.compute, s.bandwidth, s.launch)))
        console.print(table)
        console.print()
        console.print(_summary(m, target, factors))
        console.print()
    if found["else"]:
        console.print(f"What if, on {first.target}", style="bold", soft_wrap=True)
        table = _table("otherwise as above", "same, ms", "new, ms", "MB", "mJ", "actions/s")
        for words, m in found["else"].items():
            table.add_row(words, f"{m.same / 1e3:.2f}", f"{m.new / 1e3:.2f}", f"{m.memory / 1e6:.0f}",
                          "" if m.joules is None else f"{1e3 * m.joules:.1f}",
                          f"{m.actions_per_s:.0f}" if m.actions_per_s else "")
        console.print(table)
        console.print(f"also modelled: times within a factor of {factors.time:.2f}, memory of {factors.memory:.2f}, "
                      f"energy "
                      f"of {factors.joules:.2f}, either way", style="dim")


def _table(first: str, *titles: str) -> Table:
    table = Table(**PADDING)
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def between(value: float, factor: float, digits: int = 2) -> str:
    """The error band, as "1.23 to 2.57"."""
    return f"{value / factor:.{digits}f} to {value * factor:.{digits}f}"


def _summary(m, target, factors) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    grid.add_row(f"{m.same / 1e3:.2f} ms",
                 f"a replan with the same instruction ({between(m.same / 1e3, factors.time)})")
    grid.add_row(f"{m.new / 1e3:.2f} ms", f"a replan with a new one ({between(m.new / 1e3, factors.time)})")
    if m.actions_per_s:
        grid.add_row(f"{m.actions_per_s:.0f} /s", f"actions at most, with h = {m.execute} executed per chunk "
                     f"({between(m.actions_per_s, factors.time, 0)})")
    size, what = f"{m.memory / 1e6:.0f} MB", "weights, activations and values passed between stages"
    if target.board is None:
        grid.add_row(size, what)
    else:
        grid.add_row(size, f"{what} ({between(m.memory / 1e6, factors.memory, 0)}), of "
                     f"{target.board.memory.usable_bytes / 1e6:.0f} usable on the board; CUDA and TensorRT take "
                     f"{target.software.context_mb:.0f}")
    if m.joules is not None:
        grid.add_row(f"{1e3 * m.joules:.1f} mJ", f"per replan, the whole module at {m.watts:.1f} W while it works "
                     f"({between(1e3 * m.joules, factors.joules, 1)})")
    return grid


def _measure(bundles, args, terminal: Terminal):
    with terminal.phases() as phases:
        phases("open the bundle" if len(bundles) == 1 else f"open {len(bundles)} bundles")
        from vlacompile.profile.measure import measure_together, place_of, write_profile

        total, said = (args.warm_up + args.replans) * len(bundles), time.monotonic()
        phases(f"replan {total} times")

        def progress(done: int) -> None:
            nonlocal said
            if time.monotonic() - said > EVERY_S:
                phases(f"replan, {100 * done // total} % done")
                said = time.monotonic()
        found = measure_together(bundles, replans=args.replans, warm_up=args.warm_up, threads=args.threads,
                                 native_code=args.native_code, power_mode=args.power_mode,
                                 jetson_clocks=args.jetson_clocks, progress=progress)
        for profile in found if args.out else ():
            write_profile(profile, place_of(profile, Path(args.out)) if _is_folder(args.out) else Path(args.out))
    return found


def print_measured(console: Console, profile, name: str, plan) -> None:
    where = f"{profile.machine['cpu']}, {profile.threads or 'all'} thread(s)"
    console.print(f"{name}, measured on {where}", style="bold", soft_wrap=True)
    table = Table(**PADDING)
    table.add_column("ms", no_wrap=True)
    for title in ("times", "median", "p95", "p99", "max"):
        table.add_column(title, justify="right", no_wrap=True)
    words = WORDS | stage_words(plan)
    for name, s in profile.series.items():
        table.add_row(words.get(name, name), str(len(s.us)),
                      *(f"{x / 1e3:.3f}" for x in (s.median, s.at(0.95), s.at(0.99), max(s.us))))
    console.print(table)
    console.print(f"{profile.warm_up} warm-up replans are not counted", style="dim")
    for name, mean in profile.iterations.items():
        console.print(f"{name}: {mean:.3g} iterations in the mean; the data decides how many", style="dim")
    if profile.unchanged:
        console.print(f"never changed: {', '.join(profile.unchanged)}", style="dim")
    if words := profile.fared():
        console.print(f"the board ({profile.sensors}): {words}", style="dim")
    console.print()


WORDS = {"same": "replan, same instruction", "new": "replan, new instruction", "write": "input copy",
         "pop": "pop of one action"}


def stage_words(plan) -> dict[str, str]:
    """{series: stage}; for a loop, with the number of iterations that one latency covers."""
    return {f"stage {s.name}": s.name + (f", {s.iterations_text} iterations" if s.iterations > 1 else "")
            for s in plan.stages}


def _compare(args, terminal: Terminal) -> None:
    from vlacompile.profile.measure import compare_profiles, read_profile

    first, second = (read_profile(Path(p)) for p in args.compare)

    def show(console: Console) -> None:
        rows = compare_profiles(first, second)
        print_differences(console, rows)
        _print_verdicts(console, rows)
        if first.machine != second.machine:
            console.print("the two were measured on different machines or versions", style="bold")
        same = "both are of one bundle: the difference is the machine's state. " if first.hash == second.hash else ""
        busy = "" if all(d.turns for d in rows) else "; other load during one of the two shows as a difference as well"
        console.print(f"{same}p: two-sided {_test_of(rows)}{busy}", style="dim")
    terminal.show(_differences(first, second), show)


def _differences(first, second) -> dict:
    from vlacompile.profile.measure import compare_profiles

    return {"first": first.hash, "second": second.hash, "same_machine": first.machine == second.machine,
            "series": [asdict(d) | {"ratio": d.ratio} for d in compare_profiles(first, second)]}


def print_differences(console: Console, rows) -> None:
    from vlacompile.profile.measure import SIGNIFICANT

    table = Table(**PADDING)
    table.add_column("median, ms", no_wrap=True)
    for title in ("first", "second", "ratio", ""):
        table.add_column(title, justify="left" if not title else "right", no_wrap=True)
    for d in rows:
        words = "may be chance" if d.p > SIGNIFICANT else ("slower" if d.ratio > 1 else "faster")
        table.add_row(WORDS.get(d.series, d.series.removeprefix("stage ")), f"{d.first / 1e3:.3f}",
                      f"{d.second / 1e3:.3f}",
                      f"{d.ratio:.2f}", f"{words}, p = {d.p:.2g}")
    console.print(table)


def print_together(console: Console, first, second, first_name: str, second_name: str) -> None:
    """Comparison of two bundles that were measured in alternating rounds."""
    from vlacompile.profile.measure import ROUND, compare_profiles

    rows = compare_profiles(first, second)
    console.print(f"{second_name} compared with {first_name}", style="bold", soft_wrap=True)
    print_differences(console, rows)
    _print_verdicts(console, rows)
    console.print(f"measured in alternating rounds of {ROUND} replans, so that other load hit both; p: two-sided "
                  f"{_test_of(rows)}", style="dim")
    console.print()


def _print_verdicts(console: Console, rows) -> None:
    """A sentence for each kind of replan."""
    from vlacompile.profile.measure import SIGNIFICANT

    for d in rows:
        if d.series in ("same", "new"):
            size = f"{abs(100 * (d.ratio - 1)):.0f} % {'slower' if d.ratio > 1 else 'faster'}"
            verdict = "no significant difference" if d.p > SIGNIFICANT else f"the second is {size}"
            console.print(f"{WORDS[d.series]}: {verdict} (p = {d.p:.2g})")


def _test_of(rows) -> str:
    from vlacompile.profile.measure import LEAST_ROUNDS

    return ("Wilcoxon signed-rank on the medians of paired rounds" if all(d.turns for d in rows) else
            f"Mann-Whitney U on all times (measured separately, or in fewer than {LEAST_ROUNDS} rounds)")
