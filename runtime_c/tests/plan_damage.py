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
def timed(threads: int, parallel: int, times: int = 1):
    def apply(plan: Container) -> None:
        for _ in range(times):
            plan.add("concurrency", threads=threads, parallel=parallel)
    return apply


def carried(like: int = 3, following: int = 3, value: int | None = None, times: int = 1, **fields):
    """A value like another one that is what `following` was in the last step."""
    def apply(plan: Container) -> None:
        policy, rows = plan.records["policy"][0], plan.records["values"]
        for k in range(times):
            at = -(-policy["arena_bytes"] // 64) * 64
            own = plan.add("values", **{**rows[like], "name": plan.string(f"kept{k}"), "offset": at})
            policy["arena_bytes"] = at + rows[like]["bytes"]
            plan.add("carried", **{"value": own if value is None else value, "next": following,
                                   "initial": 0xFFFFFFFF, "until": 0, **fields})
    return apply


STRUCTURE = {
    "what is carried is not made by every step": (carried(), r"carried\[0\].*not made anew by every step"),
    "what is carried has another shape": (carried(like=4), "differ in shape"),
    "what is carried is written": (carried(value=0), "has another writer"),
    "what is carried is a stage's": (carried(value=3), "which has another writer"),
    "what is carried begins in another shape": (carried(initial=0), "begins with differs"),
    "what is carried never ends": (carried(until=2), "until 2 is unknown"),
    "two are carried as one": (carried(times=2), "another one's"),
    "stages were timed with no thread": (timed(0, 1), r"concurrency\[0\].*0 threads and 1 stages"),
    "stages were timed with too many threads": (timed(1025, 1), "1025 threads"),
    "no stage runs at a time": (timed(1, 0), "1 threads and 0 stages"),
    "too many stages run at a time": (timed(1, 65), "1 threads and 65 stages"),
    "stages were timed twice": (timed(1, 2, 2), "2 records instead"),
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
    "two stages share bindings": (change("stages", 0, input_count=7), "in part another record's"),
    "a stage has no file": (change("stages", 0, artefact=0xFFFFFFFF), "artefact 4294967295 is not a stage file"),
    "a stage of another engine has no file": (change("stages", 0, artefact=0xFFFFFFFF, backend=3), "not a stage file"),
    "a name is no UTF-8": (rename("values", 3, "a\udcffb"), "not UTF-8"),
    "a name moves the cursor": (rename("values", 3, "a\x1b[2Jb"), "holds control characters"),
    "a name has two lines": (rename("stages", 0, "a\nb"), "holds control characters"),
    "a name hides a control character": (rename("stages", 0, "a\x9bb"), "holds control characters"),
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
    "a stage has no file to build from": (change("stages", 0, artefact=0xFFFFFFFF), "is not a stage file"),
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

def bounds_for_another_axis(plan: Container) -> None:
    plan.records["guards"][1].update({k: plan.records["guards"][0][k] for k in BOUNDS})
    plan.records["guards"][0].update(low_count=0, high_count=0)


BOUNDS = ("low_begin", "low_count", "high_begin", "high_count")
# sample_loops.Ending(4): values state 0, false 1, zero 2, small 3, count 5, over 7, action 9; stages halve 0, act 1.
LOOPS = {
    "an end's stage does not exist": (change("loop_ends", 0, stage=2), "stage 2 does not exist"),
    "an end comes twice": (twice("loop_ends"), "stage 0 comes twice"),
    "an end's stage is no loop": (change("loop_ends", 0, stage=1), "not one bool that stage 1 carries"),
    "an end's condition does not exist": (change("loop_ends", 0, condition=10), "condition 10 does not exist"),
    "an end's condition is a scratch value": (change("loop_ends", 0, condition=8), "not one bool that stage 0 carries"),
    "an end's condition is a count": (change("loop_ends", 0, condition=5), "not one bool that stage 0 carries"),
    "an end's condition is a constant": (change("loop_ends", 0, condition=1), "not one bool that stage 0 carries"),
    "an end's flag is no flag": (change("loop_ends", 0, must_end=2), "must_end is 2, neither 0 nor 1"),
    "an end's reserved field is in use": (change("loop_ends", 0, reserved=1), "is not zero"),
}


def rows_behind_an_end(plan: Container) -> None:
    """Of Flow(3), whose loop writes a row per iteration: its sample becomes one bool, and its end's condition."""
    for value in (1, 4, 5):
        plan.records["values"][value].update(dtype=9, rank=1, dims=padded((1,)), bytes=1)
    plan.records["policy"][0].update(action_value=0xFFFFFFFF, chunk_steps=0, execute_steps=0, action_dim=0)
    plan.records["loop_ends"] = [{"stage": 1, "condition": 4, "must_end": 0}]


# sample_actions.samples()["limited_clip"]: an i32 source of 4 rows, and a step of two floats, 0 and 1.
BUCKETS = {  # of the plan of bucketed()
    "one length is missing": (lambda plan: plan.records["buckets"].pop(), "not one per backbone"),
    "lengths do not ascend": (change("buckets", 0, length=4), r"buckets\[1\].*do not ascend"),
    "a length is nothing": (change("buckets", 0, length=0), r"buckets\[0\].*do not ascend"),
    "the longest is not the mask's": (change("buckets", 1, length=3), r"buckets\[1\].*that of the mask"),
    "lengths have two masks": (change("buckets", 1, mask=0), "not that of the first"),
    "lengths are padded on two sides": (change("buckets", 1, side=1), "not that of the first"),
    "the mask is no mask": (lambda plan: [row.update(mask=2) for row in plan.records["buckets"]], "not bool"),
}
LIMITS = {
    "there are two limits": (lambda plan: plan.records["rate_limits"].append(plan.records["rate_limits"][0]
                                                                             | {"step_count": 0}),
                             "2 records are too many"),
    "two limits share steps": (twice("rate_limits"), "in part another record's"),
    "a limit's rule is unknown": (change("rate_limits", 0, rule=2), "rule 2 is unknown"),
    "a limit's steps are too few": (change("rate_limits", 0, step_count=1), "1 steps for 2 dimensions"),
    "a limit's steps do not exist": (change("rate_limits", 0, step_begin=9), "leaves the floats section"),
    "a limit's step is negative": (number("floats", 0, -1.0), "step of dimension 0 is negative"),
    "a limit's step is NaN": (number("floats", 1, float("nan")), "step of dimension 1 is negative or not finite"),
    "a limit's reserved field is in use": (change("rate_limits", 0, reserved=1), "is not zero"),
    "a table's source does not exist": (change("token_ranges", 0, source=2), "source 2 does not exist"),
    "a table's source comes twice": (twice("token_ranges"), "source 0 comes twice"),
    "a table has no rows": (change("token_ranges", 0, rows=0), "no rows"),
    "a table's source is of floats": (change("token_ranges", 0, source=1), "not of i32 or i64"),
}

# sample_actions.samples()["guarded"]: guards of the sources 0, f32[1,5,2] with two bounds, and 1, f32[1,4] with one.
GUARDS = {
    "a guard's source does not exist": (change("guards", 1, source=2), "source 2 does not exist"),
    "a source is guarded twice": (change("guards", 1, source=0), "source 0 comes twice"),
    "a guard's rule is unknown": (change("guards", 0, outside=2), "outside 2 is unknown"),
    "a guard's flag is unknown": (change("guards", 0, not_finite=2), "not_finite is 2, neither 0 nor 1"),
    "a guard's bounds are not pairs": (change("guards", 0, high_count=1), "not as many upper bounds"),
    "a guard has bounds for another axis": (bounds_for_another_axis, "neither one nor as many"),
    "two guards share bounds": (change("guards", 1, low_begin=0, high_begin=0, low_count=2, high_count=2),
                                "in part another record's"),
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
