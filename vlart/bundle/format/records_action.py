"""Records of plan.bin that make actions of the action value, and the text of each in plan.txt; see layout.py."""

from __future__ import annotations

from vlart.bundle.format.record import Part, enum, index, number, real, record, reserved, span

DECODE = record(
    "decode",
    "One step from the action value to actions, in order. The action value is f32[1,H,D], or integers where the first "
    "step reads tokens (LOOKUP or PIECES). index(token) = direction * (token - first).",
    enum("kind", "decode_kind"),
    enum("outside", "outside", "LOOKUP, PIECES: what an index beyond the table gives"),
    enum("symbols", "symbols", "PIECES: what a row of the table holds"),
    enum("length", "length", "PIECES: what another number of symbols than H * D does"),
    index("table", "weights", "LOOKUP: f32[D,V]; PIECES: i32[V,L], rows end at a negative number; BASIS: f32[H,H]",
          optional=True),
    index("value", "values", "DELTA: of an f32 source", optional=True),
    span("float", "floats", "AFFINE: scale[D], then offset[D]"),
    span("index", "indices", "LOOKUP: first[D], then rows in use[D]; PIECES: first; DELTA: element of the source per "
         "dimension, or NONE"),
    number("direction", "i64", "LOOKUP, PIECES: 1 or -1"),
    number("offset", "i64", "PIECES: added to every symbol"),
    number("stop", "i64", "PIECES: token that ends the sequence; negative: none", optional=True),
    by="kind",
    parts={"lookup": {"index": (Part("first"), Part("rows"))}, "pieces": {"index": (Part("first", one=True),)},
           "affine": {"float": (Part("scale"), Part("offset"))}, "delta": {"index": (Part("element"),)}},
    text={"lookup": "lookup {table} direction={direction} outside={outside} first={first} rows={rows}",
          "pieces": "pieces {table} direction={direction} outside={outside} first={first} symbols={symbols} "
                    "offset={offset} stop={stop} length={length}",
          "basis": "basis {table}",
          "affine": "affine scale={scale} offset={offset}",
          "delta": "delta {value} element={element}"},
)

CONSUMPTION = record(
    "consumption",
    "At most one: how chunks become the actions of successive ticks; without it, a queue.",
    enum("consume", "consume"),
    real("decay", "f32", "ENSEMBLE: m; prediction i of a tick has the weight exp(-m * i), i = 0 the oldest"),
    number("delay", "u32", "REALTIME: d, ticks that a replan is expected to take; d <= execute_steps <= H - d"),
    enum("schedule", "schedule", "REALTIME: of the prefix weights"),
    number("horizon", "u32", "REALTIME: prefix weights are 0 from here on, 1..H"),
    index("previous", "values", "REALTIME: f32[1,H,N] of a source that the runtime fills with the rest of the last "
          "`chunk`", optional=True),
    index("weights", "values", "REALTIME: H f32 of a source that the runtime fills with prefix weights", optional=True),
    index("chunk", "values", "REALTIME: of a stage; what `previous` continues, of the same shape", optional=True),
    by="consume",
    text={"queue": "",
          "ensemble": "ensemble decay={decay}",
          "realtime": "realtime delay={delay} schedule={schedule} horizon={horizon} previous={previous} "
                      "weights={weights} chunk={chunk}"},
)

RATE_LIMIT = record(
    "rate_limit",
    "At most one: how far an action may be from the one that was handed out the tick before, in the same episode.",
    enum("rule", "rate_rule", "what an action that is farther does"),
    span("step", "floats", "per action dimension; 0: any"),
    reserved(),
    text="rate_limit {rule} step={step}",
)
