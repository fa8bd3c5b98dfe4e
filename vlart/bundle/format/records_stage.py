"""Records of plan.bin that are of one stage, and the text of each in plan.txt; see layout.py."""

from __future__ import annotations

from vlart.bundle.format.record import bits, enum, flag, index, number, owner, real, record, reserved, span, string

STAGE = record(
    "stage",
    "Values with one dependency set, computed by one engine. Records are in execution order.",
    string("name", "unique"),
    enum("backend", "backend", later=True),
    index("artefact", "files", "that the backend loads", optional=True),
    number("iterations", "u32", "1, or K for a loop body"),
    span("dep", "indices", "that this stage depends on", items="sources", attribute="depends"),
    span("input", "bindings", attribute="inputs"),
    span("output", "bindings", attribute="outputs"),
    span("initializer", "initializers", attribute="initializers"),
    span("carry", "carries", "empty unless a loop body", attribute="carries"),
    number("flops", "u64", "floating-point operations per iteration (matmul, convolution, attention; 2 per MAC)"),
    number("weight_bytes", "u64", "bytes of weights that one iteration reads"),
    text="stage {#} {name} {backend} file={artefact} iterations={iterations} flops={flops} weight_bytes={weight_bytes}",
)

BINDING = record(
    "binding",
    "A port of a stage's engine and the value behind it.",
    string("port", "name of the engine's input or output"),
    index("value", "values"),
    enum("mode", "binding_mode"),
    reserved(),
    text="{port} {value} {mode}",
)

INITIALIZER = record(
    "initializer",
    "A weight handed to a stage's engine under the name that its artefact uses.",
    string("port", "name of the initializer in the artefact"),
    index("weight", "weights"),
    text="{port} {weight}",
)

CARRY = record(
    "carry",
    "A loop-carried value. Iteration 0 reads `initial`; iteration k > 0 reads what k-1 wrote; the last "
    "iteration writes `result`; the others alternate between `scratch` and `result`.",
    index("initial", "values"),
    index("result", "values", "of the same shape and dtype"),
    index("scratch", "values", "of the same shape and dtype"),
    index("input", "bindings", "(mode CARRY) that reads it", within="input"),
    index("output", "bindings", "(mode CARRY) that writes it", within="output"),
    reserved(),
    text="carry {initial} -> {result} scratch {scratch} in={input} out={output}",
)

SAMPLING = record(
    "sampling",
    "How the loop of one stage is run, and what was given up for it. At most one per stage; nothing is executed by it.",
    owner("stage", "stages", "sampling"),
    enum("form", "loop_form"),
    number("iterations", "u32", "how often the loop's body is evaluated"),
    number("written", "u32", "the same, in the policy as it was given"),
    string("solver", "what integrates, or as-written"),
    real("error", "f32", "of the action chunk, in units of each action dimension's spread; the worst dimension's"),
    real("budget", "f32", "what the recipe allows"),
    reserved(),
    text="sampling form={form} iterations={iterations} solver={solver} written={written} error={error} budget={budget}",
)

LOOP_END = record(
    "loop_end",
    "Of a loop stage: its iterations are the largest number, and the data decides which is the last. At most one per "
    "stage, in the order of stages. Iterations behind the end, where any run, leave every carried value as it is.",
    owner("stage", "stages", "end"),
    index("condition", "values", "bool of one element, the result of one of its carries: 1 after the last iteration"),
    flag("must_end", "1: a run that reaches the largest number without its end fails"),
    reserved(),
    text="end {condition} must_end={must_end}",
)

PRECISION = record(
    "precision",
    "What the layers of one block of a stage are stored as and computed in, and what that costs. Records are in the "
    "order of stages; nothing is executed by them.",
    owner("stage", "stages", "precisions", many=True),
    string("group", "<stage>/<path of the block>"),
    enum("scheme", "scheme"),
    enum("decider", "decider", "what chose it"),
    number("layers", "u32", "number of layers, at least 1"),
    real("error", "f32", "of the action chunk by this alone, in units of each action dimension's spread, the worst "
         "dimension's; 0 = fp32, or not measured"),
    real("time_us", "f32", "of all iterations of a run of the stage, by the target's rates; 0 = the target has none"),
    reserved(),
    number("bytes", "u64", "of the stored weights; what an earlier record stores counts there"),
    text="precision {group} {scheme} by={decider} layers={layers} error={error} time_us={time_us} bytes={bytes}",
)

BUILD = record(
    "build",
    "How the engine of a stage is built where it will run, and what it must come out as. At most one per stage, in the "
    "order of stages, of those of TENSORRT. Layers' precisions are in the artefact's own types.",
    owner("stage", "stages", "build"),
    bits("flags", "build_flag"),
    number("level", "u32", "builder optimisation level, 0..5"),
    number("aux_streams", "u32", "streams beside the main one that the engine may use"),
    number("int8_gemms", "u32", "matrix products and convolutions in INT8"),
    number("int4_dequants", "u32", "INT4 weights whose dequantisation is part of their product"),
    number("attentions", "u32", "attentions that are one kernel each"),
    reserved(),
    number("workspace_bytes", "u64", "limit of the builder's workspace"),
    number("weight_bytes", "u64", "packed weights that the engine holds"),
    number("engine_bytes_min", "u64", "a plan file below this has lost weights"),
    number("engine_bytes_max", "u64", "a plan file above this has weights in a wider type than was asked for"),
    number("activation_bytes", "u64", "bound of the engine's activation memory"),
    text="build flags={flags} level={level} aux_streams={aux_streams} workspace={workspace_bytes} "
         "weights={weight_bytes} engine={engine_bytes_min}..{engine_bytes_max} activations={activation_bytes} "
         "int8_gemms={int8_gemms} int4_dequants={int4_dequants} attentions={attentions}",
)
