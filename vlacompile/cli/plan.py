"""`vlacompile plan SOURCE`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import add_checkpoint_options, add_text_length, checkpoint_options
from vlacompile.cli.fit_table import print_fit, print_moments
from vlacompile.cli.sources import HUB, fetched, run_in, without_weights
from vlacompile.cli.terminal import Terminal
from vlacompile.report.emission_rows import known_by, unfused_rows
from vlart.arguments import positive
from vlart.bundle.plan.stage_rows import depends_words, gflop, megabytes, percent
from vlart.vocabulary import CARRIED

SUMMARY = "show the stages of a policy without building it"
DESCRIPTION = """Trace a policy and divide it into stages, without writing or running anything:
which inputs each stage depends on, how often it runs, what it costs, and which
weights are constant-folded or never read. With --no-weights the policy is made
from shapes alone (no weights are read), so that a policy of any size fits into
memory. For a board it also says whether the policy fits into its memory, with
which precisions and loading, or what would make it fit, and the latency that is
modelled for it. If the recipe leaves
the precision open, the planner chooses it by memory alone: the effect on the
actions is not measured here.

"""+HUB+"""
Of such a checkpoint only the small files are fetched, as with --no-weights."""
EPILOG = """examples:
  vlacompile plan my_robot.policy:make
  vlacompile plan outputs/train/checkpoints/last/pretrained_model --no-weights
  vlacompile plan lerobot/act_aloha_sim_transfer_cube_human
  vlacompile plan my_robot.policy:make --target orin-nano-8gb --instructions 20

next: `vlacompile build SOURCE` builds it"""


def add_arguments(parser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="+",
                        help="package.module:factory, a checkpoint directory, or org/name[@revision] on the Hub; "
                             "NAME=SOURCE for each of several")
    parser.add_argument("--target", "-t", default="host", metavar="T",
                        help="the hardware to plan for: a name from `vlacompile targets`, or a .toml file (default: "
                             "host)")
    parser.add_argument("--recipe", "-r", default="default", metavar="R",
                        help="build options (precision, loops, tolerances): a name from `vlacompile recipes`, or a "
                             ".toml file (default: default)")
    parser.add_argument("--instructions", type=positive, metavar="N",
                        help="on a board: precompute N instructions, so that the language stages need not be loaded")
    parser.add_argument("--swap", type=positive, metavar="MB",
                        help="on a board: swap space available while engines are built")
    add_text_length(parser)
    add_checkpoint_options(parser)
    parser.add_argument("--no-weights", action="store_true", help="use shapes only; the weights need not be present")


def run(args, terminal: Terminal) -> None:
    from vlacompile.hardware.target import load_target
    from vlacompile.phases.load_policy import environment_for
    from vlacompile.recipe.recipe import load_recipe
    from vlart.errors import ConfigError

    # Wrong arguments are reported before anything slow begins.
    target, board = load_target(args.target), None
    load_recipe(args.recipe, target)
    if target.board is None and (args.instructions or args.swap):
        raise ConfigError("--instructions and --swap need a board", where=f'target "{target.name}"',
                          why="the target has no memory to plan for", fix="choose a board: `vlacompile targets`")
    options = checkpoint_options(args)
    source = fetched(args, terminal, weights=False, options=options)
    if not args.no_weights and without_weights(args.source, source, options):
        args.no_weights, args.argv = True, [*args.argv, "--no-weights"]
    environment = environment_for(source, weights=not args.no_weights, options=options)
    if environment is not None and environment.is_installed():
        run_in(environment, args, source)
    with terminal.phases() as phases, phases.asides():
        phases("load the compiler")
        from vlacompile.pipeline import plan, plan_on_board

        if target.board is None:
            found = plan(source, args.target, args.recipe, weights=not args.no_weights, options=options,
                         text_length=args.text_length, progress=phases)
        else:
            found, board = plan_on_board(source, args.target, args.recipe, weights=not args.no_weights,
                                         instructions=args.instructions, swap_mb=args.swap or 0.0, options=options,
                                         text_length=args.text_length, progress=phases)
    document = found.as_dict() | (board.as_dict() if board is not None else {})
    terminal.show(document, lambda console: _print(console, found, board))
    if board is not None:
        board.fit.require()


def _print(console: Console, found, board=None) -> None:
    carried = [n for n, update in found.sources.items() if update == CARRIED]
    written = [n for n in found.sources if n not in carried]
    console.print(f"{found.policy}: {_millions(found.parameters['all'])} parameters", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("depends on")
    for title in ("GFLOP", "share", "weights MB", "share", "iter."):
        table.add_column(title, justify="right", no_wrap=True)
    for r in found.stages:
        depends = depends_words(r.sources, written, carried)
        table.add_row(r.stage, depends, gflop(r.flops), percent(r.flops_share), megabytes(r.weight_bytes),
                      percent(r.weight_share), r.iterations_text)
    console.print(table)
    p, work, made = found.parameters, found.flops, sum(f.numbers for f in found.folded)
    _facts(console, "Parameters", (
        (_millions(p["in_stages"]), "in stages"),
        (_millions(p["folded"]), f"constant-folded into {_millions(made)} numbers"),
        (_millions(p["unread"]), "never read"), (_millions(p["dropped"]), "duplicates, or rows that nothing reads")))
    lengths = ", of every text length, of which one runs" if "text lengths" in found.origin else ""
    _facts(console, "Work per chunk, GFLOP", (
        (gflop(work["in_stages"]), f"in stages{lengths}"), (gflop(work["folded"]), "constant-folded"),
        (gflop(work["saved"]), "removed: repeated or unused work")))
    if board is not None:
        print_fit(console, board.fit)
        print_moments(console, board.fit, board.layers_ms)
        _print_latency(console, board)
        _print_attentions(console, board)
    if found.origin:
        _facts(console, "How it was read", tuple(found.origin.items()), justify="left")


def _print_latency(console: Console, board) -> None:
    latency = board.as_dict()["latency"]
    if latency is None:
        return
    longest = " of the longest text" if board.text_tokens else ""
    rows = [(f"{latency['same_instruction_ms']:.1f}", f"ms per replan{longest}"),
            (f"{latency['new_instruction_ms']:.1f}", f"ms for the first with a new instruction{longest}")]
    rows += [(f"{board.backbones[n].same / 1e3:.1f}", f"ms per replan of up to {tokens} tokens of text, "
                                                      f"{board.backbones[n].new / 1e3:.1f} with a new one")
             for n, tokens in board.text_tokens.items()]
    if latency["actions_per_s"]:
        rows.append((f"{latency['actions_per_s']:.1f}", f"actions/s, {latency['executed']} executed per replan"))
    if latency["joules"] is not None:
        how = ", extrapolated to this mode" if latency["extrapolated"] else ""
        rows.append((f"{latency['joules']:.2g}", f"joules per replan, at {latency['watts']:.0f} W; within a factor "
                                                 f"{latency['joules_factor']:.2g}{how}"))
    _facts(console, f"Latency, modelled within a factor {latency['error_factor']:.2g}, not measured", tuple(rows))


def _print_attentions(console: Console, board) -> None:
    """Those that are not fused, or may be slow although they are."""
    rows = unfused_rows(board.attention_facts(), board.iterations)
    if not rows:
        return
    console.print("\nAttentions; ms of a replan, modelled, and not in the latency", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("stage", "", "heads x queries x keys x width", "fused", "ms"):
        table.add_column(title, justify="right" if title in ("", "ms") else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in known_by(rows):
        console.print(line, soft_wrap=True)


def _facts(console: Console, title: str, rows: tuple[tuple[str, str], ...], justify: str = "right") -> None:
    console.print(f"\n{title}", style="bold")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify=justify, no_wrap=True)
    grid.add_column()
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else str(count)
