"""Stages of a bundle that TVM compiles ahead of time: for the target's processor or GPU, and also for this machine's
processor if it differs, so that the stages can be replayed here."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage
from vlacompile.compiler.emit.tvm.schedules import Schedules
from vlacompile.compiler.emit.tvm.stage import TvmStage, compile_tvm
from vlacompile.hardware.target import Target
from vlacompile.recipe.recipe import StagesRecipe
from vlart.bundle.directory import stage_path, with_files
from vlart.bundle.plan.plan import Plan
from vlart.errors import ConfigError
from vlart.files.pieces import Content


@dataclass(frozen=True)
class Compiled:
    """files: {path in the bundle: bytes}. local: the same for this machine's processor; empty if `files` run on it.
    notes: which schedules were used, and which code was compiled but not run. reports: {stage: {machine: the compiler's
    report}} for the manifest, reproducible between builds."""

    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    local: dict[str, bytes] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    reports: dict[str, dict[str, dict]] = field(default_factory=dict, repr=False)


def compile_ahead(stages: Mapping[str, OnnxStage], wanted: StagesRecipe, schedules: Schedules | None, target: Target,
                  progress: Callable[[str], None]) -> Compiled:
    """schedules: those of the recipe; new ones are added to their file; None only without stages. Raises ConfigError
    for a search of schedules on a machine other than the target, and EmitError if TVM cannot compile a stage."""
    here = platform.machine()
    if wanted.tvm_trials and target.processor != here:
        raise ConfigError("schedules cannot be searched for another processor", where=f'target "{target.name}"',
                          why=f"candidates are timed on this machine, which is {here}, not {target.processor}",
                          fix="build on such a machine once, and give its file as stages.tvm_schedules without "
                              "tvm_trials")
    if not stages:
        return Compiled()
    assert schedules is not None
    machine = target.processor if wanted.tvm_device == "cpu" else f"sm_{target.board.gpu.compute_capability}"
    files, local, notes, reports = {}, {}, [], {}
    for name, stage in stages.items():
        progress(f"compile {name} with TVM for {machine}"
                 + (f" ({wanted.tvm_trials} trials)" if wanted.tvm_trials else ""))
        made = compile_tvm(stage, machine, host=target.processor, trials=wanted.tvm_trials, seed=wanted.tvm_seed,
                           known=schedules.lines)
        files[stage_path(name, "tvm")] = made.library
        found = made.report["schedules"]
        if found is None:
            notes.append(f"TVM: {name}: TVM's own schedules")
        else:
            schedules.keep(found)
            notes.append(f"TVM: {name}: searched schedules for {found['found']} of {found['kernels']} kernels")
        if machine != here:
            local[stage_path(name, "tvm")] = compile_tvm(stage, here).library
            notes.append(f"TVM: {name}: compiled for {machine}; the replay runs the same stage compiled for {here}")
        reports[name] = {machine: reported(made, run=machine == here)}
    return Compiled(files, local, tuple(notes), reports)


def for_this_processor(plan: Plan, contents: Mapping[str, Content]) -> Plan:
    """The plan of a bundle in which this machine's processor runs the stages that TVM compiled. contents: the bundle's
    files, with `local`."""
    stages = tuple(replace(s, backend="tvm") if s.backend == "tvm_cuda" else s for s in plan.stages)
    return with_files(replace(plan, stages=stages), contents)


def reported(made: TvmStage, run: bool) -> dict:
    """The reproducible part of a compiler's report: without the number of candidates tried (0 once they are found), and
    without the schedules, which have their own file. run: whether the golden frames are replayed with this code."""
    found = made.report["schedules"]
    return made.report | {"bytes": len(made.library), "run": run,
                          "schedules": found and {key: found[key] for key in ("kernels", "found")}}
