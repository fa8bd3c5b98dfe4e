"""The atlas: every system of the zoo at its real size, on every board, from shapes alone. Modelled, nothing measured.

    python -m benchmarks.atlas [NAME ...] [--workers N]
    python -m benchmarks.atlas --from-records [NAME ...]

Writes profiles/atlas/NAME.json, a file per variant of a system, and what `vlacompile zoo` says of them
(vlacompile/zoo/recorded.json); docs/atlas.md and docs/atlas.html are rendered from the records. Without names: all of
them. A system that cannot be planned ends the command after the others, with its reason.
--from-records plans nothing: power, energy and error bands are computed again from the recorded times, in seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import resource
import sys
import time
from pathlib import Path

from vlacompile import workers
from vlacompile.compiler.staging.stage_account import Account, StageRow
from vlacompile.hardware.target import load_target
from vlacompile.pipeline import plan_on_boards
from vlacompile.profile.modelled_stages import BoardPlan, energy_of
from vlacompile.profile.published import bands
from vlacompile.zoo import catalogue
from vlacompile.zoo.names import PREFIX
from vlacompile.zoo.recorded import FILE as SUMMARY
from vlacompile.zoo.recorded import summary_of
from vlart.errors import VlaError
from vlart.files.atomic import write_whole
from vlart.vocabulary import CARRIED

FOLDER = Path(__file__).parents[1] / "profiles" / "atlas"
BOARDS = ("orin-nano-4gb", "orin-nano-8gb", "orin-nx-8gb", "orin-nx-16gb", "agx-orin-64gb")
SPEEDS = ("static", "task", "observation", "step", "tick")


def record(entry: catalogue.Entry) -> dict:
    """Raises VlaError."""
    begin = time.perf_counter()
    account, boards = plan_on_boards(f"{PREFIX}{entry.name}", BOARDS, weights=False)
    system = entry.system
    return {
        "name": entry.name, "title": system.title, "number": system.number, "year": system.year,
        "reconstruction": system.is_reconstruction, "architecture": system.architecture, "code": system.code,
        "weights": system.weights, "assumptions": list(system.assumptions),
        "published": [dataclasses.asdict(p) for p in system.published],
        "sources": {n: update for n, update in account.sources.items() if update != CARRIED},
        "parameters": dict(account.parameters), "flops": dict(account.flops),
        "stages": [_stage(r, account) for r in account.stages], "arrows": _arrows(account),
        "boards": {b: _board(p, account) for b, p in zip(BOARDS, boards, strict=True)},
        "error_factor": bands().time, "seconds": round(time.perf_counter() - begin, 1),
    }


def planned(name: str) -> dict | VlaError:
    """What one worker does; one system that cannot be planned does not end the others."""
    try:
        return record(catalogue.find(name)) | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    except VlaError as error:
        return error


def _stage(row: StageRow, account: Account) -> dict:
    carried = [s for s in row.sources if account.sources[s] == CARRIED]
    written = [s for s in row.sources if s not in carried]
    speed = "tick" if carried else max((account.sources[s] for s in written), key=SPEEDS.index, default="static")
    sources = [*written, *([f"{len(carried)} carried values"] if carried else [])]
    return {"stage": row.stage, "sources": sources, "iterations": row.iterations, "flops": row.flops,
            "weight_bytes": row.weight_bytes, "parameters": row.parameters, "speed": speed}


def _arrows(account: Account) -> list[list[str]]:
    """[from, to, what is passed]: sources and stages by name."""
    makers = {value: r.stage for r in account.stages for value in r.gives}
    found: dict[tuple[str, str], list[str]] = {}
    for r in account.stages:
        for source in (s for s in r.inputs if account.sources[s] != CARRIED):
            found[f"source {source}", r.stage] = [source]
        for value, kind in r.reads.items():
            if makers.get(value, r.stage) != r.stage:  # not of a table that the compiler made
                found.setdefault((makers[value], r.stage), []).append(f"{value} {kind}")
    return [[a, b, ", ".join(values)] for (a, b), values in found.items()]


def _board(planned: BoardPlan, account: Account) -> dict:
    document = planned.as_dict()
    fit = planned.fit
    weights: dict[str, int] = {}
    for s in fit.stages:
        weights[s.scheme] = weights.get(s.scheme, 0) + s.weights
    return {"fits": fit.fits, "spare_bytes": fit.spare, "swap_bytes": fit.swap, "verdict": fit.verdict,
            "peak_bytes": fit.peak, "weights": weights, "measures": list(fit.measures), "latency": document["latency"],
            "schemes": {s.stage: s.scheme for s in fit.stages}}


def again(found: dict) -> dict:
    """A record with what follows from its times computed anew."""
    boards = {}
    for name, board in found["boards"].items():
        latency = board["latency"]
        if latency is not None:
            latency = latency | energy_of(load_target(name), latency["same_instruction_ms"])
        boards[name] = board | {"latency": latency}
    return found | {"boards": boards, "error_factor": bands().time}


def summary() -> str:
    """vlacompile/zoo/recorded.json: what `vlacompile zoo` says of every record, a line each."""
    plans = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(FOLDER.glob("*.json"))}
    found = {name: dataclasses.asdict(summary_of(plan)) for name, plan in plans.items()}
    return "{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(s)}" for n, s in found.items()) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as after zoo: (default: all)")
    workers.add_options(parser)
    parser.add_argument("--from-records", action="store_true", help="compute power, energy and error bands again")
    arguments = parser.parse_args()
    entries = [catalogue.find(n) for n in arguments.names] or catalogue.entries()
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = []

    def ended(index: int, found: dict | VlaError) -> None:
        name = entries[index].name
        if isinstance(found, VlaError):
            failed.append(f"{name}: {found}")
            return
        peak = found.pop("peak")
        write_whole(FOLDER / f"{name}.json", (json.dumps(found, indent=1) + "\n").encode())
        fits = sum(b["fits"] for b in found["boards"].values())
        print(f"{name}: {found['parameters']['all'] / 1e6:.0f} M parameters, {len(found['stages'])} stages, fits "
              f"{fits} of {len(BOARDS)} boards; {found['seconds']:.0f} s, its process {peak:.0f} MB at most so far",
              flush=True)

    if arguments.from_records:
        for path in (FOLDER / f"{e.name}.json" for e in entries):
            found = again(json.loads(path.read_text(encoding="utf-8")))
            write_whole(path, (json.dumps(found, indent=1) + "\n").encode())
    else:
        workers.chosen(arguments).run(planned, [e.name for e in entries], done=ended, told=print)
    if not arguments.names and not arguments.from_records:
        for path in FOLDER.glob("*.json"):
            if path.stem not in {e.name for e in entries}:
                path.unlink()
    write_whole(SUMMARY, summary().encode())
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    importlib.import_module(__spec__.name).main()  # under the name by which workers find its tasks
