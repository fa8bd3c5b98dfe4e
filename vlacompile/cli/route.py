"""`vlacompile route fit | show | decide`."""

from __future__ import annotations

import math

from vlacompile.cli.terminal import Terminal
from vlart.errors import ConfigError

SUMMARY = "choose a light or heavy backbone per instruction, by evidence"
DESCRIPTION = """Route each instruction to the cheapest backbone that is good enough: `fit`
counts successes in evaluation logs, per instruction and backbone; `show` prints
the fitted table; `decide` says which backbone an instruction gets, and why.

A backbone is good enough if P(its success rate >= that of the last backbone -
delta) >= tau. Of those, the one with the lowest expected cost of an episode is
chosen. Success rates have Beta posteriors, shrunk towards the instruction's
cluster and then towards all instructions where there is little evidence. The
last backbone named is the reference, and the one escalated to."""
EPILOG = """examples:
  vlacompile route fit light=light.jsonl heavy=heavy.jsonl \\
      --cost light=4.7+2.9 --cost heavy=38.8+3.1 --states 0-9 -o routing.json
  vlacompile route show routing.json
  vlacompile route decide routing.json "put the bowl on the plate"

a line of a log:
  {"instruction": "...", "state": 0, "success": true, "replans": 10}

next: `vlacompile route decide routing.json "..." --draws 100000`, and evaluate
the instructions that it escalates"""

_FIT_ONLY = {"output": None, "profile": None, "cost": [], "states": None, "embeddings": None, "delta": None,
             "tau": None, "allowed": None, "budget": None}


def add_arguments(parser) -> None:
    parser.add_argument("action", choices=("fit", "show", "decide"),
                        help="fit a table, show it, or decide for instructions")
    parser.add_argument("inputs", nargs="+", metavar="INPUT",
                        help="fit: logs, as BACKBONE=FILE.jsonl, lightest backbone first (FILE.jsonl alone, if "
                        "FILE.settings.json names its backbone); show: a table; decide: a table and instructions")
    fit = parser.add_argument_group("fit")
    fit.add_argument("-o", "--output", metavar="FILE.json",
                     help="the table to write; libvlart's FILE.bin is written beside it")
    fit.add_argument("--profile", metavar="JSON",
                     help="measured latency of each backbone's stages, e.g. profiles/host/demo.json")
    fit.add_argument("--cost", metavar="NAME=TASK+REPLAN", action="append", default=[],
                     help="cost in ms per instruction and per replan, instead of a profile")
    fit.add_argument("--states", metavar="RANGES", help="initial states to fit on, e.g. 0-9,12 (default: all)")
    fit.add_argument("--embeddings", metavar="JSON", help="{instruction: [numbers]} to cluster by (default: the words)")
    fit.add_argument("--delta", type=float, help="tolerated loss of success rate, 0 to 1 (default: cross-validated)")
    fit.add_argument("--tau", type=float, help="required probability, 0 to 1 (default: cross-validated)")
    fit.add_argument("--allowed", type=float, metavar="LOSS",
                     help="success rate that may be lost in cross-validation (default: 0.01)")
    fit.add_argument("--budget", type=float, metavar="SHARE",
                     help="cost limit in cross-validation, as a share of the last backbone's cost, e.g. 0.6 (default: "
                          "none)")
    other = parser.add_argument_group("decide")
    other.add_argument("--embedding", metavar="JSON",
                       help="the instructions' embeddings: [numbers] or {instruction: [numbers]}")
    other.add_argument("--draws", type=int, default=0,
                       help="also estimate the probabilities by Monte Carlo with so many draws")
    other.add_argument("--seed", type=int, default=0, help="random seed of the draws (default: 0)")


def run(args, terminal: Terminal) -> None:
    if args.action != "fit":
        odd = [k for k, default in _FIT_ONLY.items() if getattr(args, k) != default]
        if odd:
            raise ConfigError(f"--{odd[0]} belongs to fit", where=f"vlacompile route {args.action}",
                              why="an existing table is not changed", fix="leave it out, or run fit again")
    {"fit": _fit, "show": _show, "decide": _decide}[args.action](args, terminal)


def _fit(args, terminal: Terminal) -> None:
    from vlacompile.routing.fit import choose_rule, fit_table
    from vlacompile.routing.logs import of_states, parse_states, read_logs
    from vlacompile.routing.table import Rule, table_text
    from vlacompile.routing.table_binary import table_bytes
    from vlart.files.atomic import write_whole

    if args.output is None or not args.output.endswith(".json"):
        raise ConfigError("no output file is given", where="vlacompile route fit",
                          why=f"-o is {args.output or 'missing'}", fix="give -o FILE.json")
    if (args.delta is None) != (args.tau is None):
        raise ConfigError("--delta and --tau go together", where="vlacompile route fit", why="only one of them is "
                                                                                             "given",
                          fix="give both, or neither to have them chosen")
    if args.delta is not None and (args.allowed is not None or args.budget is not None):
        raise ConfigError("--allowed and --budget control how delta and tau are chosen", where="vlacompile route fit",
                          why="delta and tau are given", fix="give the one pair or the other")
    played = read_logs(args.inputs)
    episodes = of_states(played, None if args.states is None else parse_states(args.states))
    names = tuple(dict.fromkeys(e.backbone for e in played))
    costs = _costs(args, names)
    embeddings = None if args.embeddings is None else _vectors(args.embeddings)
    choice = None
    rule = Rule(args.delta, args.tau) if args.delta is not None else None
    if rule is None:
        choice = choose_rule(episodes, costs, embeddings, 0.01 if args.allowed is None else args.allowed,
                             math.inf if args.budget is None else args.budget)
        rule = choice.rule
    sources = [*sorted({f"log {e.log}" for e in episodes}), f"states {args.states or 'all'}"]
    sources += [f"cost of {n}: {c.source}" for n, c in costs.items()]
    table = fit_table(episodes, costs, embeddings, rule, sources=sources)
    write_whole(args.output, table_text(table).encode())
    write_whole(args.output.removesuffix(".json") + ".bin", table_bytes(table))

    def render(console) -> None:
        _print_table(console, table)
        if choice is not None:
            _print_choice(console, choice)
        console.print(f"table    {args.output}, {args.output.removesuffix('.json')}.bin", soft_wrap=True)

    from dataclasses import asdict

    document = {"table": args.output, "rule": asdict(rule), "episodes": len(episodes),
                "cross_validation": None if choice is None else
                {"routed": asdict(choice.routed), "heavy": asdict(choice.heavy), "kept": choice.kept}}
    terminal.show(document | {"routes": _rows(table)}, render)


def _costs(args, names: tuple[str, ...]) -> dict:
    from vlacompile.routing.backbone_costs import parse_cost, read_profile

    given = dict(parse_cost(c) for c in args.cost)
    odd = [n for n in given if n not in names]
    if odd:
        raise ConfigError(f'there is no log for "{odd[0]}"', where="--cost", why=f"the logs are of {', '.join(names)}",
                          fix="correct the name, or give its log")
    rest = tuple(n for n in names if n not in given)
    if rest and args.profile is None:
        raise ConfigError(f'the cost of "{rest[0]}" is not known', where="vlacompile route fit",
                          why="neither --profile nor --cost has it",
                          fix=f"measure it, then --cost {rest[0]}=TASK_MS+REPLAN_MS")
    found = given | (read_profile(args.profile, rest) if rest else {})
    return {n: found[n] for n in names}


def _vectors(path: str) -> dict[str, list[float]]:
    import json
    from pathlib import Path

    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("cannot read the embeddings", where=path, why=str(error), fix="give a JSON file") from error
    rows = document if isinstance(document, dict) else {"": document}
    for name, row in rows.items():
        if not (isinstance(row, list) and row and all(isinstance(x, (int, float)) and math.isfinite(x) for x in row)):
            raise ConfigError("an embedding is not a list of finite numbers", where=f'{path}, "{name}"',
                              why=str(row)[:60], fix="give [numbers] or {instruction: [numbers]}")
    if len({len(row) for row in rows.values()}) != 1:
        raise ConfigError("the embeddings differ in size, or there are none", where=path,
                          why=str(sorted({len(r) for r in rows.values()})), fix="give at least one, all of the same "
                                                                                "size")
    return rows


def _show(args, terminal: Terminal) -> None:
    from dataclasses import asdict

    from vlacompile.routing.table import read_table

    if len(args.inputs) != 1:
        raise ConfigError("show takes one table", where="vlacompile route show", why=f"{len(args.inputs)} are given",
                          fix="give one file")
    table = read_table(args.inputs[0])
    document = {"rule": asdict(table.rule), "prior": asdict(table.prior), "routes": _rows(table),
                "backbones": [asdict(b) for b in table.backbones], "sources": list(table.sources)}
    terminal.show(document, lambda console: _print_table(console, table))


def _decide(args, terminal: Terminal) -> None:
    from vlacompile.routing.beta import probability_monte_carlo
    from vlacompile.routing.decide import decide
    from vlacompile.routing.table import read_table

    if len(args.inputs) < 2:
        raise ConfigError("no instruction to decide", where="vlacompile route decide", why="only a table is given",
                          fix='vlacompile route decide TABLE "INSTRUCTION"')
    if args.draws < 0 or args.seed < 0:
        raise ConfigError("--draws and --seed must not be negative", where="vlacompile route decide",
                          why=f"they are {args.draws} and {args.seed}", fix="give at least 0")
    table, texts = read_table(args.inputs[0]), args.inputs[1:]
    vectors = _vectors(args.embedding) if args.embedding else {}
    documents = []
    for text in texts:
        decision = decide(table, text, vectors.get(text, vectors.get("")))
        row = _document(table, text, decision)
        if args.draws:
            last = decision.beliefs[-1]
            for b, belief in zip(row["backbones"][:-1], decision.beliefs, strict=False):
                b["drawn"], b["drawn_error"] = probability_monte_carlo(
                    belief.alpha, belief.beta, last.alpha, last.beta, table.rule.delta,
                    draws=args.draws, seed=args.seed)
        documents.append(row)
    terminal.show({"decisions": documents}, lambda console: [_print_decision(console, table, d) for d in documents])


def _document(table, text: str, decision) -> dict:
    route = table.routes[decision.place.route]
    return {"instruction": text, "backbone": table.backbones[decision.backbone].name, "by": decision.place.by,
            "similarity": decision.place.similarity, "cluster": route.cluster, "level": decision.level,
            "delta": table.rule.delta, "tau": table.rule.tau,
            "backbones": [{"name": b.name, "alpha": x.alpha, "beta": x.beta, "mean": x.mean,
                           "probability": x.probability, "cost_ms": x.cost_ms}
                          for b, x in zip(table.backbones, decision.beliefs, strict=True)]}


def _rows(table) -> list[dict]:
    from vlacompile.routing.decide import Place, decide_at

    return [_document(table, r.text, decide_at(table, Place(i, "text" if r.text else "nothing", 1.0)))
            for i, r in enumerate(table.routes)]


def _print_table(console, table) -> None:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column("instruction")
    grid.add_column("cl.", justify="right")
    for b in table.backbones:
        grid.add_column(b.name, justify="right", no_wrap=True)
    grid.add_column("P", justify="right", no_wrap=True)
    grid.add_column("ms", justify="right", no_wrap=True)
    grid.add_column("takes", no_wrap=True)
    for row, route in zip(_rows(table), table.routes, strict=True):
        name = route.text or ("others of the cluster" if route.cluster is not None else "in no cluster")
        seen = [f"{e.successes:.4g}/{e.episodes:.4g} {b['mean']:.2f}"
                for e, b in zip(route.evidence, row["backbones"], strict=True)]
        chosen = next(b for b in row["backbones"] if b["name"] == row["backbone"])
        grid.add_row(name, "" if route.cluster is None else str(route.cluster), *seen,
                     " ".join(f"{b['probability']:.3f}" for b in row["backbones"][:-1]), f"{chosen['cost_ms']:.1f}",
                     row["backbone"])
    console.print(grid)
    last, rule = table.backbones[-1].name, table.rule
    console.print("\nsuccesses/initial states, and the posterior mean; P(not worse than\n"
                  f'"{last}" by more than {rule.delta:g}), which must be at least {rule.tau:g}; expected ms per '
                  'episode\n'
                  "of the backbone chosen")


def _print_choice(console, choice) -> None:
    r, h = choice.routed, choice.heavy
    rule = choice.rule
    console.print(f"chosen   delta {rule.delta:g}, tau {rule.tau:g} by cross-validation over {r.episodes} states")
    console.print(f"         routed {100 * r.success:.1f} % at {r.cost_ms:.1f} ms, the last backbone "
                  f"{100 * h.success:.1f} % at {h.cost_ms:.1f} ms")
    if not choice.kept:
        console.print("         no rule stays within the allowed loss and cost; this loses least", style="bold red")


def _print_decision(console, table, d: dict) -> None:
    where = {"text": "it is in the table", "embedding": f"nearest to cluster {d['cluster']} by its embedding",
             "words": f"nearest to cluster {d['cluster']} by its words", "nothing": "no cluster is near"}[d["by"]]
    console.print(f'"{d["instruction"]}"', style="bold")
    console.print(f"  chosen: {d['backbone']}", style="bold green")
    near = "" if d["by"] == "text" else f" (cosine {d['similarity']:.2f})"
    evidence = {"task": "its own", "cluster": "its cluster's", "all": "all",
                "prior": "the prior alone"}[d["level"]]
    console.print(f"  {where}{near}; evidence: {evidence}")
    for b in d["backbones"]:
        p = f"P {b['probability']:.4f}" if b is not d["backbones"][-1] else "reference"
        console.print(f"  {b['name']}: Beta({b['alpha']:.2f}, {b['beta']:.2f}), mean {b['mean']:.3f}, {p}, "
                      f"{b['cost_ms']:.1f} ms")
        if "drawn" in b:
            console.print(f"    P by draws {b['drawn']:.4f} +- {b['drawn_error']:.4f}")
    console.print(f"  rule: P >= {d['tau']:g} with margin {d['delta']:g}, then the lowest cost\n")
