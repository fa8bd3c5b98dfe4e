"""What boards measured, from profiles/boards, and what of the latency model is fitted to it.

    python -m benchmarks.board_records [FILE ...]     # is a record whole, what is it, and does it count? (default: all)

The rule, written before there was any record:

- A record counts if the one reader takes it (vlacompile/profile/record_file.py) and its kind is "board". Doubles,
  emulators, processors, what is not shown to be a board and what was made up never count.
- It has LEAST_REPLANS replans with the same instruction, no loop whose end the data decides (its iterations differ from
  what is modelled), and no cooling device slowed the board meanwhile. Over-current events do not exclude it: a Nano in
  its fastest mode has thousands.
- Of one bundle on one board in one power mode, the newest counts.
- Its latency is modelled anew from its own products, in its power mode, at the clock that the GPU held.
- With LEAST_BUNDLES bundles of a board, the board has a factor: the geometric mean of measured over modelled replans,
  in which each bundle counts once. Each bundle is predicted with the factor of the others alone. The factor is used
  (BOARD_FACTORS of vlacompile/hardware/board_cost_model.py) only if these predictions have a smaller median error than
  the model without one; a test holds the constants to the fit.
- Nothing else is fitted to them: power and memory are compared.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vlacompile.hardware.board_cost_model import modelled_launch, modelled_rates
from vlacompile.hardware.target import Target, load_target
from vlacompile.profile.board_record import BoardRecord, Product, kind_of
from vlacompile.profile.kernel_work import Kernel
from vlacompile.profile.record_file import read_record
from vlacompile.profile.roofline import stage_us
from vlart.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "profiles" / "boards"
LEAST_REPLANS, LEAST_BUNDLES = 100, 3
COUNTS = ("board",)


@dataclass(frozen=True)
class Row:
    """A record that counts, with ms of a replan with the same instruction; modelled: without any factor."""

    file: str
    board: str
    mode: str
    bundle: str
    name: str
    date: str
    measured_ms: float
    modelled_ms: float
    watts: float | None
    modelled_watts: float | None


@dataclass(frozen=True)
class Factor:
    """used: 1 where the factor does not pass its rule. without, others: median errors of the predictions, as a factor
    either way, without one and with that of the other bundles."""

    board: str
    bundles: int
    fitted: float | None
    without: float
    others: float | None
    used: float


def why_not(record: BoardRecord, counts: Sequence[str] = COUNTS) -> str:
    """Why a record does not count; "" if it does."""
    kind, why = kind_of(record)
    if kind not in counts:
        return f'of kind "{kind}": {why}'
    if record.same is None or record.same.count < LEAST_REPLANS:
        return f"fewer than {LEAST_REPLANS} replans with the same instruction"
    if ends := [s.name for s in record.stages if s.ends]:
        return f"the data ends the loop of {', '.join(ends)}"
    if slowed := [n for n in record.sensors.throttled if not n.startswith("over-current")]:
        return f"the board was slowed down by {', '.join(slowed)}"
    return ""


def counted(folder: Path = FOLDER, counts: Sequence[str] = COUNTS) -> list[Row]:
    """Raises ConfigError for a file that is no record: none is passed over in silence."""
    newest: dict[tuple[str, str, str], Row] = {}
    for path in sorted(folder.rglob("*.json")):
        record = read_record(path)
        if not why_not(record, counts):
            row = _row(record, path.relative_to(folder).as_posix())
            key = row.board, row.mode, row.bundle
            if key not in newest or newest[key].date < row.date:
                newest[key] = row
    return list(newest.values())


def _row(record: BoardRecord, file: str) -> Row:
    assert record.same is not None
    target, s = _as_it_ran(record), record.sensors
    return Row(file, record.device.target, record.device.mode or "", record.bundle.hash, record.bundle.name,
               record.date, record.same.median_ms, modelled_ms(record, target),
               s.watts["VDD_IN"].median if "VDD_IN" in s.watts else None,
               record.modelled.watts if record.modelled is not None else None)


def _as_it_ran(record: BoardRecord) -> Target:
    """In its power mode, at the clock that the GPU held, without any factor."""
    target = load_target(f"{record.device.target}@{record.device.mode}")
    assert target.board is not None and target.power is not None
    held = record.sensors.gpu_mhz
    mode = target.power if held is None else replace(target.power, held_mhz=min(held.median, target.power.gpu_mhz))
    return replace(target, power=mode, rates=modelled_rates(target.board, mode),
                   launch=modelled_launch(target.board, mode))


def modelled_ms(record: BoardRecord, target: Target) -> float:
    """Of a replan with the same instruction."""
    total = 0.0
    for s in (s for s in record.stages if s.every):
        once = [p.count * sum(stage_us([_kernel(p)], target)) for p in s.products]
        total += s.iterations * sum(once) + target.launch.overhead_us
    return total / 1e3


def _kernel(p: Product) -> Kernel:
    return Kernel("", p.kind, p.scheme, p.rows, p.operations, p.stored_bytes, 0, p.weights)


def fit(rows: Iterable[Row]) -> dict[str, Factor]:
    """{board: its factor}"""
    ratios: dict[str, dict[str, list[float]]] = {}
    for r in rows:
        ratios.setdefault(r.board, {}).setdefault(r.bundle, []).append(math.log(r.measured_ms / r.modelled_ms))
    found = {}
    for board, bundles in ratios.items():
        logs = [statistics.fmean(x) for x in bundles.values()]
        without = statistics.median(map(abs, logs))
        if len(logs) < LEAST_BUNDLES:
            found[board] = Factor(board, len(logs), None, math.exp(without), None, 1.0)
            continue
        left = [abs(x - statistics.fmean(logs[:i] + logs[i + 1:])) for i, x in enumerate(logs)]
        fitted, others = math.exp(statistics.fmean(logs)), statistics.median(left)
        found[board] = Factor(board, len(logs), fitted, math.exp(without), math.exp(others),
                              fitted if others < without else 1.0)
    return found


def document(folder: Path = FOLDER, counts: Sequence[str] = COUNTS) -> dict:
    """For profiles/board-model.json."""
    rows = counted(folder, counts)
    return {"rows": [asdict(r) for r in rows], "factors": {b: asdict(f) for b, f in fit(rows).items()}}


def constants(factors: Iterable[Factor]) -> dict[str, float]:
    """BOARD_FACTORS, as it must be."""
    return {f.board: round(f.used, 4) for f in factors if f.used != 1.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: all of profiles/boards")
    files = parser.parse_args().files or sorted(FOLDER.rglob("*.json"))
    refused = 0
    for path in files:
        try:
            record = read_record(path)
        except ConfigError as error:
            refused += 1
            print(f"{path.name}: {error}")
            continue
        ratio = "" if record.ratio is None else f", measured / modelled {record.ratio:.2f}"
        why = why_not(record)
        print(f"{path.name}: {record.label}{ratio}")
        print(f"  {record.bundle.name} on {record.device.target}; " + (f"does not count: {why}" if why else "counts"))
    if not files:
        print("profiles/boards has no record: no board was measured so far, and nothing is fitted to one")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
