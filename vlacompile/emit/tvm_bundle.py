"""The stages of a bundle that TVM compiles ahead of time: for the target's processor, for this one where that is
another, so that they can be replayed here, and for whatever other machine the recipe names, which nothing here runs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vlacompile.bundle.bundle import also_path, stage_path
from vlacompile.emit.onnx_stage import OnnxStage
from vlacompile.emit.tvm_schedules import schedules_of
from vlacompile.emit.tvm_stage import PACKAGES, TvmStage, compile_tvm
from vlacompile.errors import ConfigError
from vlacompile.recipe import StagesRecipe
from vlacompile.target import Target


@dataclass(frozen=True)
class Compiled:
    """files: {path in the bundle: bytes}. twins: the same for this machine's processor; empty where it is the
    target's. notes: what was searched, and what was compiled and not run. reports: {stage: {machine: what its compiler
    said}}, for the manifest: the same for the same build."""

    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    twins: dict[str, bytes] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    reports: dict[str, dict[str, dict]] = field(default_factory=dict, repr=False)


def compile_ahead(stages: Mapping[str, OnnxStage], wanted: StagesRecipe, recipe: str | None, target: Target,
                  progress: Callable[[str], None]) -> Compiled:
    """recipe: its name or path, whose folder holds the schedules. Raises ConfigError for a search on another processor
    than the target's, and EmitError where TVM refuses a stage."""
    here = platform.machine()
    if wanted.tvm_trials and target.processor != here:
        raise ConfigError("schedules cannot be searched for another processor", where=f'target "{target.name}"',
                          why=f"candidates are timed on this machine, which is {here}, not {target.processor}",
                          fix="build on such a machine once, and give its file as stages.tvm_schedules without tvm_trials")
    if not stages:
        return Compiled()
    schedules = schedules_of(wanted.tvm_schedules, recipe, target.processor, PACKAGES["apache-tvm"])
    files, twins, notes, reports = {}, {}, [], {}
    for name, stage in stages.items():
        progress(f"compile {name} with TVM" + (f" ({wanted.tvm_trials} trials)" if wanted.tvm_trials else ""))
        made = compile_tvm(stage, target.processor, trials=wanted.tvm_trials, seed=wanted.tvm_seed, known=schedules.lines)
        files[stage_path(name, "tvm")] = made.library
        found = made.report["schedules"]
        if found is None:
            notes.append(f"TVM: {name}: TVM's own schedules")
        else:
            schedules.keep(found)
            notes.append(f"TVM: {name}: searched schedules for {found['found']} of {found['kernels']} kernels")
        if target.processor != here:
            twins[stage_path(name, "tvm")] = compile_tvm(stage, here).library
            notes.append(f"TVM: {name}: compiled for {target.processor}; what was replayed is the same compiled for {here}")
        reports[name] = {target.processor: reported(made, run=target.processor == here)}
        for machine in wanted.tvm_also:
            progress(f"compile {name} with TVM for {machine}")
            other = compile_tvm(stage, machine)
            files[also_path(name, machine)] = other.library
            reports[name][machine] = reported(other, run=False)
            notes.append(f"TVM: {name}: for {machine} in {also_path(name, machine)}: compiled, not run")
    return Compiled(files, twins, tuple(notes), reports)


def reported(made: TvmStage, run: bool) -> dict:
    """What of a compiler's report is the same in every build: not how many candidates were tried (none, once they are
    found), and not the schedules, which have a file. run: whether the golden frames are replayed with this code."""
    found = made.report["schedules"]
    return made.report | {"bytes": len(made.library), "run": run,
                          "schedules": found and {key: found[key] for key in ("kernels", "found")}}
