"""Searches schedules for the kernels of a stage with TVM's MetaSchedule, and applies them. Runs within `tvm/worker.py`,
in a separate process; imports TVM.

Candidates are built and timed in this process: TVM's own builder starts a Python process per batch, which takes longer
than the kernels of a small stage. A schedule depends on a kernel's shapes, not on its weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tvm
from tvm import relax
from tvm.ir.utils import derived_object
from tvm.relax import transform
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.builder.local_builder import default_build
from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, LocalRunnerFuture, PyRunner
from tvm.s_tir.meta_schedule.runner.local_runner import default_alloc_argument, default_run_evaluator

TIMING = EvaluatorConfig(number=1, repeat=3, min_repeat_ms=10)
BATCH = 16  # candidates per round of the search
FILES = {"workloads": "database_workload.json", "records": "database_tuning_record.json"}  # as TVM names them


def lowered(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """The kernels for which schedules are searched: the same for tuning and for applying its records."""
    with target:
        return tvm.transform.Sequential([transform.DecomposeOpsForInference(), transform.CanonicalizeBindings(),
                                         relax.get_pipeline("zero")])(module)


def scheduled(module: tvm.IRModule, target: tvm.target.Target, known: dict, trials: int, seed: int, folder: Path) \
        -> tuple[tvm.IRModule, dict]:
    """module: lowered. known: {"workloads": lines, "records": lines} of TVM's files. trials: total number of candidates
    for kernels without a record; 0: they keep TVM's default schedule. folder: an empty one, for TVM.

    Returns the scheduled module, and {"workloads", "records": the fastest of each kernel, "kernels", "found": counts of
    this stage, "tried": number of candidates}.
    """
    for key, name in FILES.items():
        (folder / name).write_text("".join(f"{line}\n" for line in known[key]), encoding="utf-8")
    database = ms.database.JSONDatabase(work_dir=str(folder))
    tasks = ms.relax_integration.extract_tasks(module, target, {})
    missing = [t for t in tasks if not _is_known(database, t) and _can_be_timed(t)]
    before = len(database.get_all_tuning_records())
    if trials and missing:
        contexts, _ = ms.relax_integration.extracted_tasks_to_tune_contexts(
            extracted_tasks=missing, work_dir=str(folder), space="post-order-apply", strategy="evolutionary", seed=seed)
        for context in contexts:
            _search(context, target, max(BATCH, trials // len(contexts)), database, folder)
    with target:
        module = transform.MetaScheduleApplyDatabase(str(folder))(module)
    report = {"kernels": len(tasks), "found": sum(_is_known(database, t) for t in tasks),
              "tried": len(database.get_all_tuning_records()) - before}
    return module, report | _fastest(database, folder / "fastest")


def _search(context, target: tvm.target.Target, trials: int, database, folder: Path) -> None:
    """Searches one kernel at a time: TVM's rules fail on some (a masked addition before a softmax), and a failure
    aborts a whole search. Such a kernel keeps the schedule found before, or TVM's default."""
    built: dict[str, tvm.runtime.Module] = {}
    try:
        with target:
            ms.tune.tune_tasks(
                tasks=[context], task_weights=[1.0], work_dir=str(folder), max_trials_global=trials, database=database,
                num_trials_per_iter=BATCH, cost_model="random", builder=_builder(built), runner=_runner(built),
                measure_callbacks=[ms.measure_callback.AddToDatabase(), ms.measure_callback.UpdateCostModel()])
    except Exception as error:  # noqa: BLE001  C++ errors without a class of their own
        # The caller counts the kernels that have a schedule.
        print(f"{context.task_name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)


def _can_be_timed(task) -> bool:
    """Candidates are timed on random arrays; a kernel that uses them as indices would read out of bounds and crash."""
    return not any("int" in str(p.dtype) for function in task.dispatched[0].functions.values()
                   for p in function.params)


def _is_known(database, task) -> bool:
    kernel = task.dispatched[0]
    return database.has_workload(kernel) and bool(database.get_top_k(database.commit_workload(kernel), 1))


def _fastest(database, folder: Path) -> dict[str, list[str]]:
    folder.mkdir()
    kept = ms.database.JSONDatabase(work_dir=str(folder))
    for record in database.get_all_tuning_records():
        if kept.has_workload(record.workload.mod):
            continue
        for best in database.get_top_k(record.workload, 1):
            kept.commit_workload(best.workload.mod)
            kept.commit_tuning_record(best)
    return {key: (folder / name).read_text(encoding="utf-8").splitlines() for key, name in FILES.items()}


def _builder(built: dict):
    @derived_object
    class Here(PyBuilder):
        def build(self, inputs):
            results = []
            for i in inputs:
                try:
                    key = f"{len(built)}"
                    built[key] = default_build(i.mod, i.target, None)
                    results.append(BuilderResult(key, None))
                except Exception as error:  # noqa: BLE001  a candidate that does not compile is discarded
                    results.append(BuilderResult(None, str(error)))
            return results

    return Here()


def _runner(built: dict):
    @derived_object
    class Here(PyRunner):
        def run(self, inputs):
            results = []
            for i in inputs:
                try:
                    device = tvm.runtime.device(str(i.device_type), 0)
                    arguments = default_alloc_argument(device, tuple(a.as_json() for a in i.args_info), 1)
                    times = default_run_evaluator(built[str(i.artifact_path)], device, TIMING, arguments)
                    results.append(LocalRunnerFuture(res=times))
                except Exception as error:  # noqa: BLE001  as is one that does not run
                    results.append(LocalRunnerFuture(error_message=str(error)))
                finally:
                    built[str(i.artifact_path)] = None  # frees the module; the key stays, names are unique
            return results

    return Here()
