"""TVM's report on the stages that it compiled, as rows for `vlacompile inspect` and the report.

Reads only the manifest's provenance, where the compiler stores it.
"""

from __future__ import annotations

from collections.abc import Mapping

TAKEN = {"registers": "REG", "shared": "SHARED", "stack": "STACK"}  # by cuobjdump's names


def compiled_rows(provenance: Mapping) -> list[dict]:
    """A row per stage and machine: whether it was run, its schedules, bytes. For a GPU also the number of kernels, and
    the maximum of each resource over them; None without a GPU."""
    rows = []
    for stage, machine, report in _reports(provenance):
        kernels = list(report.get("resources", {}).values())
        rows.append({"stage": stage, "machine": machine, "run": "replayed" if report["run"] else "compiled, not run",
                     "schedules": _schedules(report["schedules"]), "bytes": report["bytes"],
                     "kernels": len(kernels) or None}
                    | {key: max((k[name] for k in kernels), default=None) for key, name in TAKEN.items()})
    return rows


def kernel_rows(provenance: Mapping) -> list[dict]:
    """A row per GPU kernel, most registers first. registers: per thread; shared, stack, constant: bytes."""
    rows = [{"stage": stage, "machine": machine, "kernel": kernel}
            | {key: taken[name] for key, name in TAKEN.items()}
            | {"constant": sum(v for name, v in taken.items() if name.startswith("CONSTANT"))}
            for stage, machine, report in _reports(provenance) for kernel, taken in report.get("resources", {}).items()]
    return sorted(rows, key=lambda r: -r["registers"])


def _reports(provenance: Mapping):
    """(stage, machine, report); empty for a bundle that was built before reports existed."""
    for stage, machines in provenance.get("tvm", {}).items():
        for machine, report in machines.items():
            yield stage, machine, report


def _schedules(found: Mapping | None) -> str:
    return "TVM's defaults" if found is None else f"tuned for {found['found']} of {found['kernels']} kernels"
