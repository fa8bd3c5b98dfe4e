"""`vlacompile inspect BUNDLE`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from vlacompile.cli.stage_tables import change_table, stage_table
from vlacompile.cli.terminal import Terminal
from vlacompile.report.emission_rows import attention_rows, boundary_rows, known_by, rule_rows
from vlacompile.report.tvm_stages import compiled_rows, kernel_rows
from vlart.bundle.plan.action import Affine, Basis, Delta, Ensemble, Lookup, Pieces, Realtime
from vlart.bundle.plan.plan import AS_WRITTEN, LoopEnd, Sampling
from vlart.bundle.plan.stage_rows import (
    backbone_rows,
    change_rows,
    gflop,
    kept_rows,
    megabytes,
    set_rows,
    stage_rows,
)
from vlart.bundle.precision_record import carried_lines, error_lines, precision_of, rotation_lines
from vlart.errors import BundleError
from vlart.vocabulary import SCHEMES

SUMMARY = "show the stages of a bundle and what each depends on"
DESCRIPTION = """Show what is in a bundle: inputs, stages and the inputs that each depends on,
what is recomputed when an input changes and what is cached, the action queue,
the compiler's notes, and provenance. Nothing is executed."""
EPILOG = """examples:
  vlacompile inspect light.vlab
  vlacompile inspect light.vlab --plan | less

next: `vlacompile verify BUNDLE` replays its golden frames"""

MOST_KEPT = 12  # rows of the tables of cached values and of GPU kernels; --json has all


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--plan", action="store_true", help="print the plan as text instead")
    parser.add_argument("--trtexec", action="store_true",
                        help="print the commands that build the engines on the board")


def run(args, terminal: Terminal) -> None:
    from vlart.bundle.directory import read_bundle
    from vlart.bundle.plan.text import plan_text

    bundle = read_bundle(args.bundle)
    plan, lengths = bundle.plan, []
    if args.plan:
        text = plan_text(plan)
        terminal.show({"plan": text}, lambda console: console.print(text, end="", soft_wrap=True))
        return
    if args.trtexec:
        lines = ["mkdir -p engines", *_commands(bundle)]
        terminal.show({"commands": lines}, lambda console: console.print("\n".join(lines), soft_wrap=True))
        return
    if plan.buckets:
        from vlacompile.profile.modelled_lengths import modelled_lengths

        lengths = modelled_lengths(bundle)
    frames = {h.source: h.frames for h in plan.histories}
    document = {
        "bundle": str(bundle.path), "bytes": bundle.bytes, "hash": bundle.hash, "name": plan.name,
        "target": plan.target, "recipe": plan.recipe, "arena_bytes": plan.arena_bytes,
        "sources": [{"name": plan.values[s.value].name, "type": str(plan.values[s.value].type), "update": s.update,
                     "clock_hz": s.clock_hz or None, "frames": frames.get(s.value, 1)} for s in plan.sources],
        "carried": [{"name": plan.values[c.value].name, "type": str(plan.values[c.value].type),
                     "next": plan.values[c.next].name, "until": c.until,
                     "begins": "zeros" if c.initial is None else plan.weights[c.initial].name} for c in plan.carried],
        "stages": stage_rows(plan), "dependency_sets": set_rows(plan), "changes": change_rows(plan),
        "kept": kept_rows(plan), "loops": [{"stage": s.name, **asdict(s.sampling)} for s in plan.stages if s.sampling],
        "precisions": [{"stage": s.name, **asdict(p)} for s in plan.stages for p in s.precisions],
        "texts": _texts(plan), "lanes": [
            {"name": x.name, "clock_hz": x.clock_hz or None, "max_age_ms": x.max_age_ms,
             "stages": [s.name for s in plan.stages if plan.lane_of(s) == i]} for i, x in enumerate(plan.lanes)],
        "backbones": backbone_rows(plan), "text_lengths": lengths,
        "action": _action(plan), "provenance": bundle.manifest["provenance"],
        "compiled": compiled_rows(bundle.manifest["provenance"]), "kernels": kernel_rows(bundle.manifest["provenance"]),
    }
    terminal.show(document, lambda console: _print(console, plan, document))


def _commands(bundle) -> list[str]:
    from vlacompile.compiler.emit.tensorrt.trtexec import commands

    found = commands(bundle.plan)
    if not found:
        raise BundleError("the bundle has no TensorRT engines to build", where=str(bundle.path),
                          why=f'its target "{bundle.plan.target}" is not a board',
                          fix="build it for a board; `vlacompile targets` lists them")
    return found


def _stages_of(plan, lane: int) -> str:
    return ", ".join(s.name for s in plan.stages if plan.lane_of(s) == lane)


def _texts(plan) -> dict:
    """known: instructions precomputed at compile time. absent: stages replaced by a lookup among them. tokenizers:
    sources with a tokenizer, which take any text."""
    return {"known": [i.text for i in plan.instructions],
            "absent": [s.name for s in plan.stages if s.backend == "library"],
            "tokenizers": [plan.values[t.tokens].name for t in plan.texts]}


def _spoken(texts: dict) -> str:
    """One line; empty if the policy takes token ids only."""
    if texts["absent"]:
        return f"{len(texts['known'])} precomputed, no others accepted: {', '.join(texts['absent'])} is a lookup"
    words = [f"{len(texts['known'])} precomputed"] if texts["known"] else []
    words += [f"any text for {name}" for name in texts["tokenizers"]]
    return "; ".join(words)


def _update(source: dict) -> str:
    frames = source["frames"]
    return source["update"] if frames == 1 else f"{source['update']}, {frames} frames kept"


def _action(plan) -> dict | None:
    a = plan.action
    return None if a is None else {
        "value": plan.values[a.value].name, "chunk_steps": a.chunk_steps, "execute_steps": a.execute_steps,
        "action_dim": a.action_dim, "deadline_us": a.deadline_us, "low": list(a.low), "high": list(a.high),
        "decode": [type(s).__name__.lower() for s in a.decode], "consume": type(a.consume).__name__.lower(),
        "decoding": _decoding(plan), "consumption": _consumption(plan)}


def _decoding(plan) -> str:
    """The decode steps in one line; empty if the chunk is executed as predicted."""
    a, words = plan.action, []
    for step in a.decode:
        match step:
            case Lookup():
                words.append(f"a lookup table of up to {max(step.rows)} entries per dimension")
            case Pieces():
                words.append(f"text pieces of {plan.weights[step.table].type.dims[0]} tokens "
                             f"({'any length' if step.length == 'fit' else 'a wrong length is refused'})")
            case Basis():
                words.append("a basis over the chunk's steps (inverse transform)")
            case Affine():
                words.append("scale and offset")
            case Delta(value):
                words.append(f"plus {plan.values[value].name}")
    return ", ".join(words)


def _loop(name: str, s: Sampling, end: LoopEnd | None, recorded: bool = True) -> str:
    engine = "all unrolled in one engine" if s.form == "fused" else "one engine run per iteration"
    if end is not None:
        missed = "; a replan that does not reach its end fails" if end.must_end else ""
        return f"{name}: up to {s.iterations} iterations, ended by the data, {engine}{missed}"
    if s.solver == AS_WRITTEN:
        return f"{name}: {s.iterations} iterations as written, {engine}"
    return (f"{name}: {s.iterations} of {s.written} iterations by {s.solver}, {engine}; action error "
            f"{s.error:.3g} of a "
            f"dimension's spread{'' if recorded else ' on generated observations'}, {s.budget:.3g} allowed")


def precision_rows(plan) -> list[tuple[str, ...]]:
    """A row per stage: layers per precision, weights in MB, modelled ms, and the layer group with the largest error."""
    rows = []
    for stage in plan.stages:
        if not stage.precisions:
            continue
        count = {scheme: sum(p.layers for p in stage.precisions if p.scheme == scheme) for scheme in SCHEMES}
        worst = max(stage.precisions, key=lambda p: p.error)
        time = sum(p.time_us for p in stage.precisions)
        rows.append((stage.name, ", ".join(f"{n} {scheme}" for scheme, n in count.items() if n),
                     f"{sum(p.bytes for p in stage.precisions) / 1e6:.2f}", f"{time / 1e3:.3f}" if time else "-",
                     f"{worst.error:.3g} {worst.group.partition('/')[2]}" if worst.error else "-"))
    return rows


def _consumption(plan) -> str:
    a = plan.action
    match a.consume:
        case Ensemble(decay):
            return f"the mean of all predictions for a tick, weighted exp(-{decay:.3g} i), oldest first"
        case Realtime():
            rest = "" if a.consume.previous is None else f", which guides it as {plan.values[a.consume.previous].name}"
            return (f"replan after {a.execute_steps} actions, {a.consume.delay} more during inference; the new chunk "
                    f"replaces the rest of the old one{rest}")
        case _:
            return ""


def _print(console: Console, plan, document: dict) -> None:
    console.print(f"{plan.name}  target {plan.target}  recipe {plan.recipe}  {megabytes(document['bytes'])} MB  "
                  f"arena {document['arena_bytes'] / 1e3:.0f} kB", style="bold", soft_wrap=True)
    for title, table in (
        ("Inputs", _columns(("name", "type", "changes with every", "Hz"),
                            [(s["name"], s["type"], _update(s), f"{s['clock_hz']:g}" if s["clock_hz"] else "-")
                             for s in document["sources"]])),
        *((("Carried from step to step", _carried(document["carried"])),) if plan.carried else ()),
        ("Stages, in the order in which they run", stage_table(plan)),
        ("When one input changes", change_table(plan)),
        ("Kept between stages", _kept(document["kept"])),
    ):
        console.print(f"\n{title}", style="bold")
        console.print(table)
    _print_precision(console, plan, document)
    _print_emission(console, plan, document["provenance"])
    if document["compiled"]:
        console.print("\nCompiled ahead of time with TVM", style="bold")
        console.print(_columns(("stage", "machine", "", "schedules", "MB"), [
            (r["stage"], r["machine"], r["run"], r["schedules"], megabytes(r["bytes"])) for r in document["compiled"]]))
    if document["kernels"]:
        console.print("\nGPU kernels in it, by cuobjdump", style="bold")
        console.print(_kernels(document["kernels"]))
    loops = [(s.name, s.sampling, s.end) for s in plan.stages if s.sampling is not None]
    if loops:
        console.print("\nLoops", style="bold")
        for name, sampling, end in loops:
            console.print(_loop(name, sampling, end, document["provenance"].get("recorded_observations", 1) > 0))
    _print_layers(console, plan, document["provenance"])
    if plan.lanes:
        console.print("\nRates, from slow to fast", style="bold")
        for i, lane in enumerate(plan.lanes):
            clock = f"{lane.clock_hz:g} Hz, at most {lane.max_age_ms} ms old"
            console.print(f"{lane.name} ({clock}): {_stages_of(plan, i)}")
        console.print(f"control loop: {_stages_of(plan, len(plan.lanes))}")
    if plan.buckets:
        _print_lengths(console, plan, document["text_lengths"])
    elif plan.backbones:
        console.print("\nBackbones, of which a session runs one; the first unless another is selected", style="bold")
        console.print(_columns(("name", "stages", "of its own", "GFLOP", "of its own", "weights MB", "of its own"), [
            (r["backbone"], str(len(r["stages"])), str(len(r["own"])), gflop(r["flops"]), gflop(r["own_flops"]),
             megabytes(r["weight_bytes"]), megabytes(r["own_weight_bytes"])) for r in document["backbones"]]))
    if _spoken(document["texts"]):
        console.print("\nInstructions", style="bold")
        console.print(_spoken(document["texts"]))
    console.print("\nAction queue", style="bold")
    console.print(_queue(document["action"]))
    _print_provenance(console, document)


def _print_lengths(console: Console, plan, rows: list[dict]) -> None:
    console.print("\nLengths of the text, of which a step runs the shortest that holds it", style="bold")
    console.print(_columns(("tokens", "backbone", "stages of its own", "GFLOP", "replan ms", "new text ms"), [
        (str(r["tokens"]), r["backbone"], str(len(r["own"])), gflop(r["flops"]),
         *("-" if r[k] is None else f"{r[k]:.3g}" for k in ("same_ms", "new_ms"))) for r in rows]))
    if any(r["same_ms"] is not None for r in rows):
        console.print(f"ms: modelled for {plan.target}, not measured", soft_wrap=True)


def _print_precision(console: Console, plan, document: dict) -> None:
    found = precision_of(document["provenance"])
    if found is None and not document["precisions"]:
        return
    console.print("\nPrecision", style="bold")
    if document["precisions"]:
        console.print(_columns(("stage", "layers", "MB", "ms", "largest error of one group"), precision_rows(plan)))
    if found is not None:
        for line in (f"{plan.recipe} was asked", *carried_lines(found), *rotation_lines(found), *error_lines(found)):
            console.print(line, soft_wrap=True)


def _print_layers(console: Console, plan, provenance: dict) -> None:
    """Stages whose equal layers are a loop of one engine."""
    by_name = {s.name: s for s in plan.stages}
    for name, made in provenance.get("layers", {}).items():
        loop = next(by_name[n] for n in made["stages"] if by_name[n].iterations > 1)
        console.print(f"\n{name}: one engine for its {made['layers']} equal layers, bound to the weights of each, "
                      f"{megabytes(loop.weight_bytes)} MB a layer ({', '.join(made['stages'])})", soft_wrap=True)


def _print_emission(console: Console, plan, provenance: dict) -> None:
    iterations, edges = {s.name: s.iterations for s in plan.stages}, boundary_rows(provenance)
    rules, attentions = rule_rows(provenance, iterations), attention_rows(provenance, iterations)
    if rules:
        console.print("\nRules of emission, by the key of the recipe that turns each off", style="bold")
        for rule, where, worth in rules:
            console.print(f"{rule}: {where}", soft_wrap=True)
            console.print(f"  {worth}", soft_wrap=True)
    if attentions:
        console.print("\nAttentions, fused or not; ms of a replan modelled, not run on a board", style="bold")
        console.print(_columns(("stage", "", "heads x queries x keys x width", "fused", "ms"), attentions))
        for line in known_by(attentions):
            console.print(line, soft_wrap=True)
    if edges:
        console.print("\nValues between stages", style="bold")
        console.print(_columns(("value", "from", "to", "type", "bytes", "casts less"), edges))


def _print_provenance(console: Console, document: dict) -> None:
    origin = document["provenance"]
    console.print("\nNotes of the compiler", style="bold")
    notes = Table.grid(padding=(0, 1, 0, 0))
    for note in origin["notes"] or ["none"]:
        notes.add_row("-", note)
    console.print(notes)
    console.print("\nBuilt from", style="bold")
    rows = [("policy", origin["policy"]), *(("Hub", revision) for revision in origin.get("hub", {}).values()),
            *origin.get("origin", {}).items(),
            ("weights", f"sha256 {origin['weights_sha256'][:16]}..."),
            ("bundle", f"sha256 {document['hash'][:16]}..."),
            ("versions", ", ".join(f"{p} {v}" for p, v in origin["versions"].items()))]
    rows += [("parity", f"{name}: max_abs {m['max_abs']:.2g}, rel L2 "
              f"{'of zeros' if m['rel_l2'] is None else format(m['rel_l2'], '.2g')} (staged graph in PyTorch against "
              "the original function)") for name, m in origin["staged_parity"].items()]
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def _queue(action: dict | None) -> str:
    if action is None:
        return "none: the first output is not a chunk [1, H, action_dim]"
    deadline = f"{action['deadline_us'] / 1e3:g} ms" if action["deadline_us"] else "no deadline"
    bounds = "bounded in every dimension" if action["low"] else "only checked to be finite"
    lines = [f"{action['value']}: {action['chunk_steps']} actions of {action['action_dim']} numbers predicted, "
             f"{action['execute_steps']} executed; {deadline}; {bounds}"]
    lines += [f"decoded by {action['decoding']}"] * bool(action["decoding"])
    lines += [f"executed: {action['consumption']}"] * bool(action["consumption"])
    return "\n".join(lines)


def _carried(rows: list[dict]) -> Table:
    return _columns(("name", "type", "is the last step's", "begins as", "until the end of the"),
                    [tuple(r[key] for key in ("name", "type", "next", "begins", "until")) for r in rows])


def _kept(rows: list[dict]) -> Table:
    largest = sorted(rows, key=lambda r: -r["bytes"])[:MOST_KEPT]
    table = _columns(("value", "type", "computed by", "read by"),
                     [(r["value"], r["type"], r["computed_by"] or "the compiler", ", ".join(r["read_by"]))
                      for r in rows if r in largest])
    if len(rows) > len(largest):
        table.add_row(f"and {len(rows) - len(largest)} smaller", "", "", "")
    return table


def _kernels(rows: list[dict]) -> Table:
    """Those with the most registers."""
    table = _columns(("stage", "registers", "shared, B", "stack, B", "kernel"), [
        (f"{r['stage']}, {r['machine']}", *(str(r[k]) for k in ("registers", "shared", "stack")), r["kernel"])
        for r in rows[:MOST_KEPT]])
    if len(rows) > MOST_KEPT:
        table.add_row(*[""] * 4, f"and {len(rows) - MOST_KEPT} of no more registers")
    return table


def _columns(titles: tuple[str, ...], rows: list[tuple]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=i == 0 and len(rows) > 0)
    for row in rows:
        table.add_row(*row)
    return table
