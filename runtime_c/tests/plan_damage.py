"""One mutation per rule that the reader enforces, with the words that must refuse it: of the plan of
Flow(3), and of a frames file with two frames of Flow(3)."""

from __future__ import annotations

from sample_bundles import Container, padded


def change(section: str, index: int, **fields):
    def apply(plan: Container) -> None:
        plan.records[section][index].update(fields)
    return apply


def rename(section: str, index: int, text: str, key: str = "name"):
    def apply(plan: Container) -> None:
        plan.records[section][index][key] = plan.string(text)
    return apply


def low_above_high(plan: Container) -> None:
    plan.records["floats"] = [{"value": 2.0}] * 3 + [{"value": 1.0}] * 3
    plan.records["policy"][0].update(low_begin=0, low_count=3, high_begin=3, high_count=3)


def bounds_are_too_few(plan: Container) -> None:
    plan.records["floats"] = [{"value": 2.0}]
    plan.records["policy"][0].update(low_begin=0, low_count=1)


def fewer_iterations(plan: Container) -> None:
    plan.records["stages"][1].update(iterations=2)
    plan.records["samplings"][0].update(iterations=2)


# Values of Flow(3): observation 0, noise 1, table 2, memory 3, sample 4, scratch 5, trace 6.
# Bindings: 0 o, 1 memory; 2 memory, 3 t, 4 x, 5 next, 6 velocity.
STRUCTURE = {
    "two values overlap": (change("values", 3, offset=64), r"values\[\d\].*overlaps value"),
    "a value leaves the arena": (change("values", 6, offset=1 << 40), "not inside the arena"),
    "an offset is not aligned": (change("values", 3, offset=132), "not aligned"),
    "a size is not the shape's": (change("values", 3, bytes=16), "do not give the size"),
    "dimensions overflow": (change("values", 3, rank=2, dims=padded((1 << 40, 1 << 40))), "overflows"),
    "a dtype is unknown": (change("values", 3, dtype=8), "dtype 8 is unknown"),
    "a rank is too large": (change("values", 3, rank=9), "rank is larger than 8"),
    "two values have one name": (rename("values", 3, "noise"), '"noise" comes twice'),
    "a string leaves its section": (change("values", 3, name=1 << 20), "outside the strings section"),
    "a value is not its weight": (change("values", 2, dims=padded((3, 3, 1, 1))), "not that of weight"),
    "a weight leaves its file": (change("weights", 1, offset=1 << 30), "not inside file 0"),
    "a weight is in a stage file": (change("weights", 0, file=1), "not a weights file"),
    "a path leaves the bundle": (rename("files", 1, "stages/../../x", "path"), "could leave the bundle"),
    "a path is absolute": (rename("files", 1, "/etc/passwd", "path"), "could leave the bundle"),
    "a file kind is unknown": (change("files", 1, kind=9), "kind 9 is unknown"),
    "two sources share a value": (change("sources", 1, value=0), "another source's"),
    "a source is a weight": (change("sources", 1, value=2), "is a weight"),
    "an update class is unknown": (change("sources", 1, update=9), "update 9 is unknown"),
    "a stage has no iteration": (change("stages", 0, iterations=0), "no iteration"),
    "a stage is its own artefact": (change("stages", 0, artefact=0), "not a stage file"),
    "a range leaves its section": (change("stages", 1, output_begin=6, output_count=2),
                                   "output, 2 from 6 on, leaves the bindings section"),
    "two stages share bindings": (change("stages", 0, input_count=7), "another stage's"),
    "a dependency is missing": (change("stages", 1, dep_count=0), "does not depend on"),
    "a dependency comes twice": (change("indices", 2, value=0), "comes twice"),
    "a dependency does not exist": (change("indices", 2, value=5), "does not exist"),
    "a value is read before it is written": (change("bindings", 0, value=6), "before anything wrote it"),
    "a value is written twice": (change("bindings", 6, value=3, mode=0), "has another writer"),
    "a source is written by a stage": (change("bindings", 1, value=1), "has another writer"),
    "a table has too few rows": (fewer_iterations, "does not have 2 rows"),
    "a carry's shapes differ": (change("carries", 0, scratch=3), "differ in shape"),
    "a carry's scratch is its result": (change("carries", 0, scratch=4), "has another use"),
    "a carry names another binding": (change("carries", 0, input=2), "not the carry's input"),
    "a carry is missing": (change("stages", 1, carry_count=0), "carried by 0 carries"),
    "a sampling's stage does not exist": (change("samplings", 0, stage=9), "stage 9 does not exist"),
    "a sampling's solver is no string": (change("samplings", 0, solver=1 << 20), "outside the strings section"),
    "a sampling's form is unknown": (change("samplings", 0, form=3), "form 3 is unknown"),
    "a sampling counts otherwise": (change("samplings", 0, iterations=9), "does not fit a stage that runs 3 times"),
    "a sampling's error is no number": (change("samplings", 0, error=float("nan")), "is no number"),
    "a precision's stage does not exist": (change("precisions", 2, stage=2), "stage 2 does not exist"),
    "a precision's stage comes too late": (change("precisions", 2, stage=0), "stage 0 comes too late"),
    "a precision's group is no string": (change("precisions", 0, group=1 << 20), "outside the strings section"),
    "a precision's scheme is unknown": (change("precisions", 0, scheme=5), "scheme 5 is unknown"),
    "a precision has no scheme": (change("precisions", 1, scheme=0), "scheme 0 is unknown"),
    "a precision's decider is unknown": (change("precisions", 0, decider=4), "decider 4 is unknown"),
    "a precision was decided by nobody": (change("precisions", 2, decider=0), "decider 0 is unknown"),
    "a precision has no layer": (change("precisions", 0, layers=0), "of no layer"),
    "a precision's error is negative": (change("precisions", 0, error=-0.5), "is no number"),
    "a precision's time is infinite": (change("precisions", 1, time_us=float("inf")), "is no number"),
    "an initializer's weight does not exist": (change("initializers", 0, weight=99), "weight 99 does not exist"),
    "the action is a source": (change("policy", 0, action_value=1), "not a stage's"),
    "the action has another shape": (change("policy", 0, chunk_steps=6), r"not a stage's f32\[1,6,3\]"),
    "more actions are executed than predicted": (change("policy", 0, execute_steps=6), "of which 6 are executed"),
    "a reserved field is in use": (change("values", 3, reserved=7), 'field "reserved" is not zero'),
    "bounds leave their section": (change("policy", 0, low_count=1), "leaves the floats section"),
    "bounds are crossed": (low_above_high, "lower bound of dimension 0"),
    "bounds are too few": (bounds_are_too_few, "1 bounds for 3"),
}

# Of Flow(3).on_board().
BOARD = {
    "a build's stage does not exist": (change("builds", 1, stage=2), "stage 2 does not exist"),
    "a stage is built twice": (change("builds", 1, stage=0), "stage 0 comes twice"),
    "a build is of another backend": (change("stages", 1, backend=1), 'stage "denoise" has no engine of TensorRT'),
    "a build's flag is unknown": (change("builds", 0, flags=4), "flags 4 are unknown"),
    "a build's level is unknown": (change("builds", 0, level=6), "level 6 is not known"),
    "an engine is smaller than it is": (change("builds", 0, engine_bytes_max=19), "at least 20 and at most 19"),
    "there is no board": (lambda plan: plan.records.pop("board"), "no board to build it on"),
    "there are two boards": (lambda plan: plan.records["board"].append(plan.records["board"][0]), "2 records instead"),
    "a board's name is no string": (change("board", 0, name=1 << 20), "outside the strings section"),
    "a board's TensorRT is no string": (change("board", 0, tensorrt=1 << 20), "outside the strings section"),
    "a timing cache has no name": (rename("board", 0, "", "timing_cache"), "not the name of a timing cache"),
    "a timing cache leaves the bundle": (rename("board", 0, "../x", "timing_cache"), "not the name of a timing cache"),
    "a timing cache is in a directory": (rename("board", 0, "a/b", "timing_cache"), "not the name of a timing cache"),
}


def twice(section: str):
    def apply(plan: Container) -> None:
        plan.records[section] *= 2
    return apply


def number(section: str, index: int, value: float):
    def apply(plan: Container) -> None:
        plan.records[section][index]["value"] = value
    return apply


# sample_actions.samples: {rule: (sample, change, words)}.
# lookup: sources raw 0, state 1; value out 2; weight decode0; steps lookup, affine, delta; D = 2.
# indices: 0 depends; 1, 2 first; 3, 4 rows; 5, 6 elements. floats: 0..3 affine, then bounds.
ACTIONS = {
    "a step's kind is unknown": ("lookup", change("decodes", 1, kind=6), r"decodes\[1\].*kind 6 is unknown"),
    "a step's kind is 0": ("lookup", change("decodes", 1, kind=0), "kind 0 is unknown"),
    "tokens are read by the second step": ("lookup", change("decodes", 1, kind=1), "only be read by the first step"),
    "tokens are not read": ("lookup", change("decodes", 0, kind=4), "is not a stage's f32"),
    "a direction is none": ("lookup", change("decodes", 0, direction=2), "neither 1 nor -1"),
    "a lookup skips": ("lookup", change("decodes", 0, outside=3), "beyond the table"),
    "an outside rule is unknown": ("lookup", change("decodes", 0, outside=9), "outside 9 is unknown"),
    "a table does not exist": ("lookup", change("decodes", 0, table=1), "table 1 does not exist"),
    "a table has another dtype": ("pieces", change("weights", 0, dtype=1), "another shape"),
    "a table has too few rows": ("lookup", change("weights", 0, dims=padded((1, 8))), "another shape"),
    "a dimension uses no row": ("lookup", number("indices", 3, 0), "uses no row"),
    "a dimension uses too many rows": ("lookup", number("indices", 4, 5), "more than its table has"),
    "the indices are too few": ("lookup", change("decodes", 0, index_count=3), "too many or too few"),
    "the indices leave their section": ("lookup", change("decodes", 0, index_begin=2**31), "leaves the indices"),
    "the tokens are too few": ("lookup", change("policy", 0, chunk_steps=4), "not one per number"),
    "a scale is not finite": ("lookup", number("floats", 0, float("inf")), "not finite"),
    "the floats are too few": ("lookup", change("decodes", 1, float_count=2), "too many or too few"),
    "the floats leave their section": ("lookup", change("decodes", 1, float_begin=2**32 - 2), "leaves the floats"),
    "a delta is of no source": ("lookup", change("decodes", 2, value=2), "not a source of f32"),
    "a delta is of integers": ("lookup", change("decodes", 2, value=0), "not a source of f32"),
    "a delta's element does not exist": ("lookup", number("indices", 5, 4), "element of its source"),
    "the tokens are floats": ("pieces", change("values", 2, dtype=1), "not a stage's i32 or i64"),
    "pieces clip": ("pieces", change("decodes", 0, outside=0), "beyond the table"),
    "the symbols are unknown": ("pieces", change("decodes", 0, symbols=2), "symbols 2 is unknown"),
    "the length rule is unknown": ("pieces", change("decodes", 0, length=2), "length 2 is unknown"),
    "a basis is for another chunk": ("pieces", change("weights", 1, dims=padded((1, 4))), "another shape"),
    "a basis is not square": ("pieces", change("policy", 0, chunk_steps=4, execute_steps=4), "another shape"),
    "there are two consumptions": ("ensemble", twice("consumption"), "too many"),
    "there is nothing to consume": ("ensemble", change("policy", 0, action_value=0xFFFFFFFF), "too many"),
    "a consumption is unknown": ("ensemble", change("consumption", 0, consume=3), "consume 3 is unknown"),
    "an ensemble executes two": ("ensemble", change("policy", 0, execute_steps=2), "replans after every action"),
    "a decay is not a number": ("ensemble", change("consumption", 0, decay=float("nan")), "decay is out of range"),
    "a decay grows without end": ("ensemble", change("consumption", 0, decay=-200.0), "decay is out of range"),
    "a delay is more than is executed": ("realtime", change("consumption", 0, delay=3), "delay <= executed"),
    "a delay leaves nothing": ("realtime", change("policy", 0, execute_steps=5), "predicted - delay"),
    "a schedule is unknown": ("realtime", change("consumption", 0, schedule=4), "schedule 4 is unknown"),
    "a horizon is 0": ("realtime", change("consumption", 0, horizon=0), "horizon is not in the chunk"),
    "a horizon is too far": ("realtime", change("consumption", 0, horizon=6), "horizon is not in the chunk"),
    "nothing is observed": ("realtime", change("sources", 0, update=1), "no observation"),
    "the previous chunk is an output": ("realtime", change("consumption", 0, previous=4), "are not sources"),
    "only the weights are missing": ("realtime", change("consumption", 0, weights=0xFFFFFFFF), "not all there"),
    "the weights are the previous chunk": ("realtime", change("consumption", 0, weights=2), "not all there"),
    "the weights are too few": ("realtime", change("consumption", 0, weights=1), "of H f32"),
    "the rest is of a source": ("realtime", change("consumption", 0, chunk=0), "not a stage's value of its shape"),
    "the rest has another shape": ("realtime", change("consumption", 0, chunk=5), "not a stage's value of its shape"),
}

# sample_actions.samples()["guarded"]: guards of the sources 0, f32[1,5,2] with two bounds, and 1, f32[1,4] with one.
GUARDS = {
    "a guard's source does not exist": (change("guards", 1, source=2), "source 2 does not exist"),
    "a source is guarded twice": (change("guards", 1, source=0), "source 0 comes twice"),
    "a guard's rule is unknown": (change("guards", 0, outside=2), "outside 2 is unknown"),
    "a guard's flag is unknown": (change("guards", 0, not_finite=2), "not_finite is 2, neither 0 nor 1"),
    "a guard's bounds are not pairs": (change("guards", 0, high_count=1), "not as many upper bounds"),
    "a guard has bounds for another axis": (change("guards", 1, low_begin=0, high_begin=0, low_count=2, high_count=2),
                                            "neither one nor as many"),
    "a guard's bounds do not exist": (change("guards", 0, high_begin=5), "high, 2 from 5 on, leaves the floats"),
    "a guard's bounds wrap around": (change("guards", 0, low_begin=2**32 - 1), "leaves the floats section"),
    "a guard's bounds are crossed": (change("guards", 1, low_begin=5, high_begin=4), "above its upper one"),
    "a guard's bound is NaN": (number("floats", 0, float("nan")), "is no number"),
    "a guarded range is of integers": (change("values", 1, dtype=6), "not of f32"),
}

FRAMES = {
    "a tensor ends outside the blob": (change("tensors", 4, offset=768), "not inside the blob"),
    "a tensor is not aligned": (change("tensors", 1, offset=4), "not aligned"),
    "a tensor's size is not its shape's": (change("tensors", 1, bytes=4), "do not give the size"),
    "a frame's tensors do not exist": (change("frames", 1, expect_count=99), "leaves the tensors section"),
    "a label is no string": (change("frames", 1, label=1 << 30), "outside the strings section"),
    "a tensor is for no source": (rename("tensors", 0, "else"), "nothing of that name"),
    "an expected shape is another": (change("tensors", 2, dims=padded((3, 1))), "not those of the bundle's value"),
}
