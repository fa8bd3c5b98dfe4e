"""Plan <-> text. `parse(print(plan)) == plan`; `vlart-dump` prints the same lines from plan.bin."""

from __future__ import annotations

import re

from vlacompile.bundle.format.layout import FORMAT_MAJOR, FORMAT_MINOR
from vlacompile.bundle.plan.action_text import action_lines, parse_consumption, parse_decode_step
from vlacompile.bundle.plan.guard import PATTERN as GUARD_PATTERN
from vlacompile.bundle.plan.guard import guard_line, parse_guard
from vlacompile.bundle.plan.plan import (
    Action,
    Backbone,
    Binding,
    Build,
    BuildBoard,
    Carry,
    Delay,
    File,
    History,
    Initializer,
    Instruction,
    Lane,
    Plan,
    Precision,
    Sampling,
    SourceInput,
    Stage,
    TensorType,
    TextInput,
    Value,
    Weight,
    as_f32,
)
from vlacompile.errors import BundleError


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _index(i: int | None) -> str:
    return "none" if i is None else str(i)


def _float(x: float) -> str:
    return f"{x:.9g}"


def _stage_lines(i: int, stage: Stage) -> list[str]:
    lines = [f"stage {i} {_quote(stage.name)} {stage.backend} file={_index(stage.artefact)} "
             f"iterations={stage.iterations} flops={stage.flops} weight_bytes={stage.weight_bytes}"]
    lines.append("  depends" + "".join(f" %{v}" for v in stage.depends))
    lines += [f"  in {_quote(b.port)} %{b.value} {b.mode}" for b in stage.inputs]
    lines += [f"  out {_quote(b.port)} %{b.value} {b.mode}" for b in stage.outputs]
    lines += [f"  init {_quote(w.port)} @{w.weight}" for w in stage.initializers]
    lines += [f"  carry %{c.initial} -> %{c.result} scratch %{c.scratch} in={c.input} out={c.output}"
              for c in stage.carries]
    if stage.sampling is not None:
        s = stage.sampling
        lines.append(f"  sampling form={s.form} iterations={s.iterations} solver={_quote(s.solver)} written={s.written} "
                     f"error={_float(s.error)} budget={_float(s.budget)}")
    lines += [f"  precision {_quote(p.group)} {p.scheme} by={p.decider} layers={p.layers} error={_float(p.error)} "
              f"time_us={_float(p.time_us)} bytes={p.bytes}" for p in stage.precisions]
    if stage.build is not None:
        b = stage.build
        lines.append(f"  build flags={','.join(b.flags) or 'none'} level={b.level} aux_streams={b.aux_streams} "
                     f"workspace={b.workspace_bytes} weights={b.weight_bytes} "
                     f"engine={b.engine_bytes_min}..{b.engine_bytes_max} activations={b.activation_bytes} "
                     f"int8_gemms={b.int8_gemms} int4_dequants={b.int4_dequants} attentions={b.attentions}")
    return lines


def plan_text(plan: Plan) -> str:
    lines = [f"plan {_quote(plan.name)} format {FORMAT_MAJOR}.{FORMAT_MINOR} "
             f"target {_quote(plan.target)} recipe {_quote(plan.recipe)}", f"arena {plan.arena_bytes}"]
    if plan.board is not None:
        b = plan.board
        lines.append(f"board {_quote(b.name)} sm={b.compute_capability} jetpack={_quote(b.jetpack)} l4t={_quote(b.l4t)} "
                     f"tensorrt={_quote(b.tensorrt)} timing_cache={_quote(b.timing_cache)}")
    lines += [f"file {i} {_quote(f.path)} {f.kind} bytes={f.bytes} crc32={f.crc32:08x}"
              for i, f in enumerate(plan.files)]
    lines += [f"weight @{i} {_quote(w.name)} {w.type} file={_index(w.file)} offset={w.offset} bytes={w.type.bytes}"
              for i, w in enumerate(plan.weights)]
    for i, v in enumerate(plan.values):
        place = f"arena+{v.offset}" if v.weight is None else f"weight=@{v.weight}"
        lines.append(f"value %{i} {_quote(v.name)} {v.type} {place}")
    lines += [f"source %{s.value} {s.update} clock={_float(s.clock_hz)}" for s in plan.sources]
    lines += [f"history %{h.source} frames={h.frames}" for h in plan.histories]
    lines += [f"delay %{d.input} -> %{d.output}" for d in plan.delays]
    lines += [f"text %{t.tokens} mask={'none' if t.mask is None else f'%{t.mask}'} tokenizer={_index(t.tokenizer)} "
              f"max_bytes={t.max_bytes}" for t in plan.texts]
    lines += [f"instruction %{i.source} {_quote(i.text)}" + "".join(f" %{v}=@{w}" for v, w in i.stored)
              for i in plan.instructions]
    lines += [f"lane {_quote(x.name)} clock={_float(x.clock_hz)} max_age_ms={x.max_age_ms}"
              + "".join(f" %{s}" for s in x.sources) for x in plan.lanes]
    lines += [guard_line(g) for g in plan.guards]
    lines += [f"backbone {_quote(b.name)} %{b.value}" for b in plan.backbones]
    for i, stage in enumerate(plan.stages):
        lines += _stage_lines(i, stage)
    if plan.action is not None:
        a = plan.action
        lines.append(f"action %{a.value} chunk={a.chunk_steps} execute={a.execute_steps} dim={a.action_dim} "
                     f"deadline_us={a.deadline_us}")
        lines += [f"  {name}" + "".join(f" {_float(x)}" for x in bound)
                  for name, bound in (("low", a.low), ("high", a.high)) if bound]
        lines += action_lines(a.decode, a.consume)
    return "\n".join(lines) + "\n"


_STRING = r'"((?:[^"\\]|\\.)*)"'
_TYPE = r"(\w+)\[((?:\d+(?:,\d+)*)?)\]"
_PATTERNS = {
    "plan": rf"plan {_STRING} format (\d+)\.(\d+) target {_STRING} recipe {_STRING}",
    "arena": r"arena (\d+)",
    "board": rf"board {_STRING} sm=(\d+) jetpack={_STRING} l4t={_STRING} tensorrt={_STRING} timing_cache={_STRING}",
    "file": rf"file \d+ {_STRING} (\w+) bytes=(\d+) crc32=([0-9a-f]{{8}})",
    "weight": rf"weight @\d+ {_STRING} {_TYPE} file=(\d+|none) offset=(\d+) bytes=\d+",
    "value": rf"value %\d+ {_STRING} {_TYPE} (?:arena\+(\d+)|weight=@(\d+))",
    "source": r"source %(\d+) (\w+) clock=(\S+)",
    "history": r"history %(\d+) frames=(\d+)",
    "delay": r"delay %(\d+) -> %(\d+)",
    "text": r"text %(\d+) mask=(?:%(\d+)|none) tokenizer=(\d+|none) max_bytes=(\d+)",
    "instruction": rf"instruction %(\d+) {_STRING}((?: %\d+=@\d+)*)",
    "lane": rf"lane {_STRING} clock=(\S+) max_age_ms=(\d+)((?: %\d+)*)",
    "guard": GUARD_PATTERN,
    "backbone": rf"backbone {_STRING} %(\d+)",
    "stage": rf"stage \d+ {_STRING} (\w+) file=(\d+|none) iterations=(\d+) flops=(\d+) weight_bytes=(\d+)",
    "depends": r"  depends((?: %\d+)*)",
    "in": rf"  in {_STRING} %(\d+) (\w+)",
    "out": rf"  out {_STRING} %(\d+) (\w+)",
    "init": rf"  init {_STRING} @(\d+)",
    "carry": r"  carry %(\d+) -> %(\d+) scratch %(\d+) in=(\d+) out=(\d+)",
    "sampling": rf"  sampling form=(\w+) iterations=(\d+) solver={_STRING} written=(\d+) error=(\S+) budget=(\S+)",
    "precision": rf"  precision {_STRING} (\w+) by=(\w+) layers=(\d+) error=(\S+) time_us=(\S+) bytes=(\d+)",
    "build": r"  build flags=(\S+) level=(\d+) aux_streams=(\d+) workspace=(\d+) weights=(\d+) engine=(\d+)\.\.(\d+) "
             r"activations=(\d+) int8_gemms=(\d+) int4_dequants=(\d+) attentions=(\d+)",
    "action": r"action %(\d+) chunk=(\d+) execute=(\d+) dim=(\d+) deadline_us=(\d+)",
    "low": r"  low((?: \S+)*)",
    "high": r"  high((?: \S+)*)",
    "decode": r"  decode (\S+(?: \S+)*)",
    "consume": r"  consume (\S+(?: \S+)*)",
}
_OF_STAGE = ("depends", "in", "out", "init", "carry", "sampling", "precision", "build")
_COMPILED = {name: re.compile(pattern) for name, pattern in _PATTERNS.items()}


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _type(dtype: str, dims: str) -> TensorType:
    return TensorType(dtype, tuple(int(d) for d in dims.split(",")) if dims else ())


def _optional(text: str) -> int | None:
    return None if text == "none" else int(text)


def _match(line: str, number: int) -> tuple[str, tuple]:
    kind = line.split(maxsplit=1)[0] if line.strip() else ""
    found = _COMPILED[kind].fullmatch(line) if kind in _COMPILED else None
    if found is None:
        raise BundleError("not a line of a plan", where=f"line {number}: {line[:60]}",
                          why=f'a "{kind}" line has another form' if kind in _COMPILED else "no line begins like this",
                          fix="print the plan anew with `vlacompile inspect --plan`")
    return kind, found.groups()


def parse_plan(text: str) -> Plan:
    """Read a plan back. Raises BundleError with the line."""
    top: dict[str, list] = {k: [] for k in ("plan", "arena", "board", "file", "weight", "value", "source", "history",
                                            "delay", "text", "instruction", "lane", "guard", "backbone", "action", "decode", "consume")}
    bounds = {"low": (), "high": ()}
    stages: list[dict] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        kind, g = _match(line, number)
        if kind == "stage":
            stages.append({"head": g, **{k: [] for k in _OF_STAGE}})
        elif kind in _OF_STAGE:
            stages[-1][kind].append(g)
        elif kind in bounds:
            bounds[kind] = as_f32(float(x) for x in g[0].split())
        elif kind in ("decode", "consume"):
            top[kind].append((parse_decode_step if kind == "decode" else parse_consumption)(g[0], number))
        else:
            top[kind].append(g)
    name, _, _, target, recipe = top["plan"][0]
    action = None
    if top["action"]:
        a = [int(x) for x in top["action"][0]]
        action = Action(*a, bounds["low"], bounds["high"], tuple(top["decode"]), *top["consume"])
    return Plan(
        _unquote(name), _unquote(target), _unquote(recipe), int(top["arena"][0][0]),
        tuple(File(_unquote(p), k, int(b), int(c, 16)) for p, k, b, c in top["file"]),
        tuple(Weight(_unquote(n), _type(d, s), _optional(f), int(o)) for n, d, s, f, o in top["weight"]),
        tuple(Value(_unquote(n), _type(d, s), int(o or 0), None if w is None else int(w))
              for n, d, s, o, w in top["value"]),
        tuple(SourceInput(int(v), u, as_f32([float(c)])[0]) for v, u, c in top["source"]),
        tuple(_parse_stage(s) for s in stages), action,
        tuple(Delay(int(i), int(o)) for i, o in top["delay"]),
        tuple(History(int(s), int(n)) for s, n in top["history"]),
        tuple(TextInput(int(v), None if m is None else int(m), _optional(t), int(n)) for v, m, t, n in top["text"]),
        tuple(Instruction(_unquote(t), int(s), tuple((int(v), int(w)) for v, w in re.findall(r"%(\d+)=@(\d+)", stored)))
              for s, t, stored in top["instruction"]),
        next((BuildBoard(_unquote(n), int(sm), *map(_unquote, rest)) for n, sm, *rest in top["board"]), None),
        tuple(Lane(_unquote(n), as_f32([float(c)])[0], int(m), tuple(int(v) for v in re.findall(r"%(\d+)", values)))
              for n, c, m, values in top["lane"]),
        tuple(parse_guard(g) for g in top["guard"]),
        tuple(Backbone(_unquote(n), int(v)) for n, v in top["backbone"]))


def _parse_stage(parts: dict) -> Stage:
    name, backend, artefact, iterations, flops, weight_bytes = parts["head"]
    return Stage(
        _unquote(name), backend, _optional(artefact), int(iterations),
        tuple(int(v) for v in re.findall(r"%(\d+)", parts["depends"][0][0])),
        tuple(Binding(_unquote(p), int(v), m) for p, v, m in parts["in"]),
        tuple(Binding(_unquote(p), int(v), m) for p, v, m in parts["out"]),
        tuple(Initializer(_unquote(p), int(w)) for p, w in parts["init"]),
        tuple(Carry(*map(int, c)) for c in parts["carry"]), int(flops), int(weight_bytes),
        next((Sampling(f, int(i), _unquote(s), int(w), *as_f32((float(e), float(b))))
              for f, i, s, w, e, b in parts["sampling"]), None),
        tuple(Precision(_unquote(g), s, d, int(n), *as_f32((float(e), float(t))), int(b))
              for g, s, d, n, e, t, b in parts["precision"]),
        next((Build(() if flags == "none" else tuple(flags.split(",")), *map(int, rest))
              for flags, *rest in parts["build"]), None))
