"""Plan <-> plan.bin, by the records of `bundle/format/layout.py`."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from vlacompile import vocabulary
from vlacompile.bundle.format import layout
from vlacompile.bundle.format.sections import SectionReader, SectionWriter
from vlacompile.bundle.plan.action_binary import add_action, read_consumption, read_decode
from vlacompile.bundle.plan.guard import add_guards, read_guards
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
)

_NONE = layout.NONE


def _key(table: dict[str, int], number: int) -> str:
    return next(k for k, v in table.items() if v == number)


def _dims(t: TensorType) -> dict:
    dims = tuple(t.dims) + (1,) * (layout.MAX_RANK - len(t.dims))
    return {"dtype": vocabulary.DTYPES[t.dtype], "rank": len(t.dims), "dims": dims}


def _type(row: dict) -> TensorType:
    return TensorType(_key(vocabulary.DTYPES, row["dtype"]), tuple(row["dims"][: row["rank"]]))


def _index(i: int | None) -> int:
    return _NONE if i is None else i


def _optional(i: int) -> int | None:
    return None if i == _NONE else i


def plan_bytes(plan: Plan) -> bytes:
    w = SectionWriter(layout.PLAN_MAGIC, layout.PLAN_SECTIONS)
    a = plan.action
    low = w.scalars("floats", a.low if a else ())
    high = w.scalars("floats", a.high if a else ())
    w.add("policy", name=w.string(plan.name), target=w.string(plan.target), recipe=w.string(plan.recipe),
          action_value=a.value if a else _NONE, chunk_steps=a.chunk_steps if a else 0,
          execute_steps=a.execute_steps if a else 0, action_dim=a.action_dim if a else 0, reserved=0,
          low_begin=low[0], low_count=low[1], high_begin=high[0], high_count=high[1],
          deadline_us=a.deadline_us if a else 0, arena_bytes=plan.arena_bytes)
    for f in plan.files:
        w.add("files", path=w.string(f.path), kind=vocabulary.FILE_KINDS[f.kind], crc32=f.crc32, reserved=0, bytes=f.bytes)
    for v in plan.values:
        storage = "arena" if v.weight is None else "weight"
        w.add("values", name=w.string(v.name), **_dims(v.type), storage=vocabulary.STORAGES[storage], bytes=v.type.bytes,
              offset=v.offset, weight=_index(v.weight), reserved=0)
    for s in plan.sources:
        w.add("sources", value=s.value, update=vocabulary.UPDATES[s.update], clock_hz=s.clock_hz, reserved=0)
    for x in plan.weights:
        w.add("weights", name=w.string(x.name), file=_index(x.file), **_dims(x.type), offset=x.offset,
              bytes=x.type.bytes)
    for i, stage in enumerate(plan.stages):
        _add_stage(w, plan, stage)
        if stage.sampling is not None:
            s = stage.sampling
            w.add("samplings", stage=i, form=vocabulary.LOOP_FORMS[s.form], iterations=s.iterations, written=s.written,
                  solver=w.string(s.solver), error=s.error, budget=s.budget, reserved=0)
        for p in stage.precisions:
            w.add("precisions", stage=i, group=w.string(p.group), scheme=vocabulary.SCHEMES[p.scheme],
                  decider=vocabulary.DECIDERS[p.decider], layers=p.layers, error=p.error, time_us=p.time_us, reserved=0,
                  bytes=p.bytes)
        if stage.build is not None:
            flags = sum(vocabulary.BUILD_FLAGS[f] for f in stage.build.flags)
            w.add("builds", **(asdict(stage.build) | {"stage": i, "flags": flags, "reserved": 0}))
    if plan.board is not None:
        w.add("board", **{k: w.string(v) if isinstance(v, str) else v for k, v in asdict(plan.board).items()})
    if a is not None:
        add_action(w, a)
    for d in plan.delays:
        w.add("delays", input=d.input, output=d.output)
    number = {s.value: i for i, s in enumerate(plan.sources)}
    for h in plan.histories:
        w.add("histories", source=number[h.source], frames=h.frames)
    for t in plan.texts:
        w.add("texts", tokenizer=_index(t.tokenizer), tokens=number[t.tokens],
              mask=_NONE if t.mask is None else number[t.mask], max_bytes=t.max_bytes)
    for lane in plan.lanes:
        sources = w.scalars("indices", [number[s] for s in lane.sources])
        w.add("lanes", name=w.string(lane.name), clock_hz=lane.clock_hz, max_age_ms=lane.max_age_ms, reserved=0,
              index_begin=sources[0], index_count=sources[1])
    for i in plan.instructions:
        begin = len(w.records["stored"])
        for value, weight in i.stored:
            w.add("stored", value=value, weight=weight)
        w.add("instructions", text=w.string(i.text), source=number[i.source], stored_begin=begin,
              stored_count=len(i.stored))
    add_guards(w, plan.guards, number)
    for b in plan.backbones:
        w.add("chunks", backbone=w.string(b.name), value=b.value)
    return w.to_bytes()


def _add_stage(w: SectionWriter, plan: Plan, stage: Stage) -> None:
    source_of = {s.value: i for i, s in enumerate(plan.sources)}
    deps = w.scalars("indices", [source_of[v] for v in stage.depends])

    def bindings(rows: tuple[Binding, ...]) -> int:
        begin = len(w.records["bindings"])
        for b in rows:
            w.add("bindings", port=w.string(b.port), value=b.value, mode=vocabulary.BINDING_MODES[b.mode], reserved=0)
        return begin

    first_in, first_out = bindings(stage.inputs), bindings(stage.outputs)
    first_init, first_carry = len(w.records["initializers"]), len(w.records["carries"])
    for i in stage.initializers:
        w.add("initializers", port=w.string(i.port), weight=i.weight)
    for c in stage.carries:
        w.add("carries", initial=c.initial, result=c.result, scratch=c.scratch, input=first_in + c.input,
              output=first_out + c.output, reserved=0)
    w.add("stages", name=w.string(stage.name), backend=vocabulary.BACKENDS[stage.backend],
          artefact=_index(stage.artefact), iterations=stage.iterations,
          dep_begin=deps[0], dep_count=deps[1],
          input_begin=first_in, input_count=len(stage.inputs),
          output_begin=first_out, output_count=len(stage.outputs),
          initializer_begin=first_init, initializer_count=len(stage.initializers),
          carry_begin=first_carry, carry_count=len(stage.carries),
          flops=stage.flops, weight_bytes=stage.weight_bytes)


def read_plan(path: Path) -> Plan:
    """Read plan.bin. Raises BundleError when it is damaged or of another version."""
    r = SectionReader(path, layout.PLAN_MAGIC)
    policy = r.rows("policy")[0]
    floats, indices, sources = r.scalars("floats"), r.scalars("indices"), r.rows("sources")
    tables = {k: r.rows(k) for k in ("bindings", "initializers", "carries")}
    action = None
    if policy["action_value"] != _NONE:
        bound = {k: floats[policy[f"{k}_begin"]: policy[f"{k}_begin"] + policy[f"{k}_count"]] for k in ("low", "high")}
        action = Action(policy["action_value"], policy["chunk_steps"], policy["execute_steps"], policy["action_dim"],
                        policy["deadline_us"], tuple(bound["low"]), tuple(bound["high"]),
                        read_decode(r, policy["action_dim"]), read_consumption(r))
    sampling = {s["stage"]: Sampling(_key(vocabulary.LOOP_FORMS, s["form"]), s["iterations"], r.string(s["solver"]),
                                     s["written"], s["error"], s["budget"]) for s in r.rows("samplings")}
    precisions: dict[int, list[Precision]] = {}
    for p in r.rows("precisions"):
        precisions.setdefault(p["stage"], []).append(Precision(
            r.string(p["group"]), _key(vocabulary.SCHEMES, p["scheme"]), _key(vocabulary.DECIDERS, p["decider"]), p["layers"],
            p["error"], p["time_us"], p["bytes"]))
    builds = {b["stage"]: _build(b) for b in r.rows("builds")}
    return Plan(
        r.string(policy["name"]), r.string(policy["target"]), r.string(policy["recipe"]), policy["arena_bytes"],
        tuple(File(r.string(f["path"]), _key(vocabulary.FILE_KINDS, f["kind"]), f["bytes"], f["crc32"])
              for f in r.rows("files")),
        tuple(Weight(r.string(x["name"]), _type(x), _optional(x["file"]), x["offset"]) for x in r.rows("weights")),
        tuple(Value(r.string(v["name"]), _type(v), v["offset"], _optional(v["weight"])) for v in r.rows("values")),
        tuple(SourceInput(s["value"], _key(vocabulary.UPDATES, s["update"]), s["clock_hz"]) for s in sources),
        tuple(_read_stage(r, row, tables, indices, sources, sampling.get(i), tuple(precisions.get(i, ())),
                          builds.get(i))
              for i, row in enumerate(r.rows("stages"))), action,
        tuple(Delay(d["input"], d["output"]) for d in r.rows("delays")),
        tuple(History(sources[h["source"]]["value"], h["frames"]) for h in r.rows("histories")),
        tuple(TextInput(sources[t["tokens"]]["value"], None if t["mask"] == _NONE else sources[t["mask"]]["value"],
                        _optional(t["tokenizer"]), t["max_bytes"]) for t in r.rows("texts")),
        tuple(Instruction(r.string(i["text"]), sources[i["source"]]["value"], tuple(
            (s["value"], s["weight"]) for s in r.rows("stored")[i["stored_begin"]: i["stored_begin"] + i["stored_count"]]))
              for i in r.rows("instructions")),
        next((_board(r, b) for b in r.rows("board")), None),
        tuple(Lane(r.string(row["name"]), row["clock_hz"], row["max_age_ms"], tuple(
            sources[s]["value"] for s in indices[row["index_begin"]: row["index_begin"] + row["index_count"]]))
              for row in r.rows("lanes")), read_guards(r, sources),
        tuple(Backbone(r.string(b["backbone"]), b["value"]) for b in r.rows("chunks")))


def _build(row: dict) -> Build:
    flags = tuple(name for name, bit in vocabulary.BUILD_FLAGS.items() if row["flags"] & bit)
    return Build(**({f.name: row[f.name] for f in fields(Build)} | {"flags": flags}))


def _board(r: SectionReader, row: dict) -> BuildBoard:
    return BuildBoard(**{f.name: row[f.name] if f.type == "int" else r.string(row[f.name]) for f in fields(BuildBoard)})


def _read_stage(r: SectionReader, row: dict, tables: dict, indices: tuple, sources: list[dict],
                sampling: Sampling | None, precisions: tuple[Precision, ...], build: Build | None) -> Stage:
    def part(what: str, table: str) -> list[dict]:
        return tables[table][row[f"{what}_begin"]: row[f"{what}_begin"] + row[f"{what}_count"]]

    def bindings(what: str) -> tuple[Binding, ...]:
        return tuple(Binding(r.string(b["port"]), b["value"], _key(vocabulary.BINDING_MODES, b["mode"]))
                     for b in part(what, "bindings"))

    deps = indices[row["dep_begin"]: row["dep_begin"] + row["dep_count"]]
    return Stage(
        r.string(row["name"]), _key(vocabulary.BACKENDS, row["backend"]), _optional(row["artefact"]), row["iterations"],
        tuple(sources[d]["value"] for d in deps), bindings("input"), bindings("output"),
        tuple(Initializer(r.string(i["port"]), i["weight"]) for i in part("initializer", "initializers")),
        tuple(Carry(c["initial"], c["result"], c["scratch"], c["input"] - row["input_begin"],
                    c["output"] - row["output_begin"]) for c in part("carry", "carries")),
        row["flops"], row["weight_bytes"], sampling, precisions, build)
