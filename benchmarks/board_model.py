"""The models of latency, memory, power and energy, held against what others measured on boards.

    python -m benchmarks.board_model

Prints the rows and writes profiles/board-model.json, which docs/board-model.md is rendered from. It plans nothing: the
work of each policy is in profiles/plans/board (`python -m benchmarks.board_policies`), seconds on one core.

The rule, written before any of it was computed: no factor of the latency model is fitted to these policies. What is
fitted to them (the power that a load adds, the idle power of the board, the memory beside engines) is predicted for
each with that policy left out. The voltage of the GPU is fitted to one stress test in four modes of another board, the
least idle power to one row; all other rows of power are held out. Rows are chosen by their source, never by result.
What boards measured with this compiler (profiles/boards) has a rule of its own: benchmarks/board_records.py.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import board_records, per_token
from benchmarks.board_policies import FOLDER as PLANS
from benchmarks.published_rows import Policies, PolicyRow, PowerRow, Scales, machines, policies, powers, scales
from vlacompile.hardware.target import Target, load_target
from vlacompile.profile.kernel_work import Kernel
from vlacompile.profile.power import FLAT_MHZ, clock_work, idle_watts, watts
from vlacompile.profile.roofline import ENGINE_SCRATCH_BYTES, in_precision, stage_us, wide_scheme
from vlart.files.atomic import write_whole

RECORD = Path(__file__).parents[1] / "profiles" / "board-model.json"


@dataclass(frozen=True)
class PowerFit:
    """Constants of vlacompile/profile/power.py: mW per SM and MHz at the lowest voltage; relative volts per MHz above
    FLAT_MHZ; W of the rail of a stress test beside its GPU; W of a board whose clocks are lowest; W per GB/s of the
    memory's clock."""

    load_mw: float
    volts_per_mhz: float
    rail_w: float
    floor_w: float
    idle_w_per_gbps: float

    def load_watts(self, sms: int, mhz: float) -> float:
        return self.load_mw / 1e3 * sms * mhz * (1 + self.volts_per_mhz * max(0.0, mhz - FLAT_MHZ)) ** 2

    def idle_watts(self, target: Target) -> float:
        return self.floor_w + self.idle_w_per_gbps * _gbps(target)


def _gbps(target: Target) -> float:
    assert target.board is not None and target.power is not None
    return target.power.dram_gbps(target.board.memory)


def fit_power(rows: Sequence[PolicyRow], others: Sequence[PowerRow], target: Target) -> PowerFit:
    """rows: policies on `target`, whose mean load and idle are taken."""
    volts, rail = _voltage([r for r in others if r.voltage])
    (floor,) = (r.watts for r in others if r.floor)
    assert target.power is not None
    squared = [(1 + volts * max(0.0, r.gpu_mhz - FLAT_MHZ)) ** 2 for r in rows]
    load = statistics.fmean((r.watts.VDD_IN - r.idle_watts.VDD_IN) / (target.power.sms * r.gpu_mhz * v)
                            for r, v in zip(rows, squared, strict=True))
    idle = statistics.fmean(r.idle_watts.VDD_IN for r in rows)
    return PowerFit(1e3 * load, volts, rail, floor, (idle - floor) / _gbps(target))


def _voltage(rows: Sequence[PowerRow]) -> tuple[float, float]:
    """(relative volts per MHz above FLAT_MHZ, W of the rail beside the GPU), from modes at or below FLAT_MHZ, where the
    rail is linear in SMs x MHz, and those above."""
    points = sorted((p.sms * p.busy_mhz, p.busy_mhz, r.watts) for r in rows
                    if (p := load_target(r.target).power) is not None)
    low, high = [p for p in points if p[1] <= FLAT_MHZ], [p for p in points if p[1] > FLAT_MHZ]
    (x0, _, y0), (x1, _, y1) = low
    slope = (y1 - y0) / (x1 - x0)
    rail = y0 - slope * x0
    rises = [(((w - rail) / (slope * x)) ** 0.5 - 1) / (mhz - FLAT_MHZ) for x, mhz, w in high]
    return statistics.fmean(rises), rail


def plan_of(kind: str) -> dict:
    """As benchmarks/board_policies.py wrote it."""
    return json.loads((PLANS / f"{kind}.json").read_text(encoding="utf-8"))


def stage_ms(plan: dict, target: Target, scheme: str = "fp16") -> dict[str, float]:
    """{stage: modelled ms of a replan with the instruction of the one before}. scheme: of the weights."""
    found = {}
    for s in plan["stages"]:
        if s["every"]:
            kernels = [_in_scheme(p, plan["scheme"], scheme, target) for p in s["products"] for _ in range(p["count"])]
            found[s["stage"]] = (s["iterations"] * sum(stage_us(kernels, target)) + target.launch.overhead_us) / 1e3
    return found


def _in_scheme(product: dict, recorded: str, scheme: str, target: Target) -> Kernel:
    kernel = Kernel("", product["kind"], recorded, product["rows"], product["operations"], product["stored"], 0,
                    product["weights"])
    return in_precision(kernel, scheme, wide_scheme(target))


def engine_bytes(plan: dict) -> int:
    """What a split needs that holds each weight once, as the published ones: weights without tables that a host looks
    up, values between stages, the largest activations and scratch of one engine."""
    return plan["distinct"]["weights"] - plan["distinct"]["tables"] + _beside_weights(plan)


def planned_bytes(plan: dict) -> int:
    """What our plan holds: an engine may have weights that another has too, and tables are in engines."""
    return sum({s["engine"]: s["weights"] for s in plan["stages"]}.values()) + _beside_weights(plan)


def _beside_weights(plan: dict) -> int:
    return plan["values"] + max(s["activations"] for s in plan["stages"]) + ENGINE_SCRATCH_BYTES


@dataclass(frozen=True)
class Compared:
    """A published policy beside the models; modelled memory, watts and joules are predicted from the other policies.
    planned_mb: with the engines of our plan, which may hold weights twice. joules_at_published: of the published
    latency, so that it is the error of the power alone."""

    kind: str
    name: str
    ours: str
    published_ms: float
    modelled_ms: float
    published_mb: float
    modelled_mb: float
    planned_mb: float
    published_watts: float
    modelled_watts: float
    published_joules: float
    modelled_joules: float
    joules_at_published: float
    stages: tuple[tuple[str, float, float], ...]


def compare(table: Policies, others: Sequence[PowerRow]) -> tuple[Compared, ...]:
    target = load_target(table.target)
    assert target.power is not None
    found = []
    for row in table.row:
        rest = [r for r in table.row if r.kind != row.kind]
        fit, plan = fit_power(rest, others, target), plan_of(row.kind)
        times = stage_ms(plan, target)
        ms = sum(times.values())
        power = fit.idle_watts(target) + fit.load_watts(target.power.sms, target.power.busy_mhz)
        found.append(Compared(
            row.kind, row.name, row.ours, row.latency_ms, ms, row.memory_mb, engine_bytes(plan) / 1e6 + beside_mb(rest),
            planned_bytes(plan) / 1e6 + beside_mb(rest),
            row.watts.VDD_IN, power, row.joules, power * ms / 1e3, power * row.latency_ms / 1e3,
            tuple((s.name, s.ms, sum(t for n, t in times.items() if n.startswith(s.ours))) for s in row.stage)))
    return tuple(found)


def beside_mb(rows: Iterable[PolicyRow]) -> float:
    """Mean memory of the system, the process and CUDA: what was published, less what our engines would hold."""
    return statistics.fmean(r.memory_mb - engine_bytes(plan_of(r.kind)) / 1e6 for r in rows)


def power_elsewhere(others: Sequence[PowerRow]) -> list[dict]:
    """Rows that nothing was fitted to, by the constants of vlacompile/profile/power.py; idle between as published."""
    found = []
    for row in (r for r in others if not r.voltage and not r.floor):
        target = load_target(row.target)
        busy, idle = watts(target), idle_watts(target)
        assert busy is not None and idle is not None and target.power is not None
        if row.gpu_mhz is not None:  # the governor's, of the mode's SMs
            then = replace(target.power, held_mhz=row.gpu_mhz)
            busy = idle + (busy - idle) * clock_work(then) / clock_work(target.power)
        between = idle if row.idle_watts is None else row.idle_watts
        found.append({"name": row.name, "target": row.target, "watts": row.watts, "source": row.source,
                      "modelled": row.busy * busy + (1 - row.busy) * between, "busy": row.busy})
    return found


def board_ratios(table: Scales) -> dict[str, dict]:
    """{board: how much faster it is than a Nano, published and modelled} of an engine that is not TensorRT."""
    rates = {b: load_target(t).rates for b, t in asdict(table.targets).items()}
    linear = {b: r.fp16.linear_gflops for b, r in rates.items() if r is not None and r.fp16 is not None}
    return {b: {"published": sorted(getattr(r, f"{b}_ms") / r.nano_ms for r in table.row),
                "modelled": linear["nano"] / linear[b]} for b in ("nx", "agx")}


def other_machines() -> list[dict]:
    """Rows of machines that are no Orin, with what is modelled for those that are targets here."""
    return [asdict(r) | {"modelled": sum(stage_ms(plan_of(r.plan), load_target(r.target), r.scheme).values())
                         if r.target else None} for r in machines()]


def scaled_per_token(table: Policies) -> list[dict]:
    target = load_target(table.target)
    plans = [(row.name, plan_of(row.kind)) for row in table.row]
    return per_token.rows([(name, plan, *(sum(stage_ms(plan, target, scheme).values()) for scheme in ("fp16", "int8")))
                           for name, plan in plans], target)


def factor(got: float, want: float) -> float:
    return max(got / want, want / got)


def summary(pairs: Sequence[tuple[float, float]]) -> dict:
    """(modelled, published) -> median error in percent, factor of nine in ten, the largest."""
    factors = sorted(factor(*p) for p in pairs)
    return {"rows": len(pairs), "median_percent": 100 * statistics.median(abs(a / b - 1) for a, b in pairs),
            "nine_of_ten": factors[min(len(factors) - 1, int(0.9 * len(factors)))], "largest": factors[-1]}


def document() -> dict:
    table, others = policies(), powers()
    rows = compare(table, others)
    fit = fit_power(table.row, others, load_target(table.target))
    elsewhere = power_elsewhere(others)
    stages = [(got, want) for r in rows for _, want, got in r.stages]
    return {
        "source": {k: v for k, v in asdict(table).items() if k != "row"}, "fit": asdict(fit),
        "rows": [asdict(r) for r in rows], "powers": elsewhere, "boards": board_ratios(scales()),
        "machines": other_machines(), "per_token": scaled_per_token(table), "measured": board_records.document(),
        "beside_mb": beside_mb(table.row),
        "clocks": [{k: getattr(r, k) for k in ("kind", "gpu_mhz", "cpu_mhz", "gpu_percent", "over_current_events")}
                   for r in table.row],
        "summary": {
            "latency": summary([(r.modelled_ms, r.published_ms) for r in rows]), "stages": summary(stages),
            "memory": summary([(r.modelled_mb, r.published_mb) for r in rows]),
            "power": summary([(r.modelled_watts, r.published_watts) for r in rows]),
            "energy": summary([(r.modelled_joules, r.published_joules) for r in rows]),
            "power elsewhere": summary([(r["modelled"], r["watts"]) for r in elsewhere])}}


def main() -> None:
    found = document()
    write_whole(RECORD, (json.dumps(found, indent=1) + "\n").encode())
    print(f"{'policy':32}{'ms':>8}{'model':>8}{'MB':>8}{'model':>8}{'W':>7}{'model':>7}{'J':>7}{'model':>7}")
    for r in found["rows"]:
        print(f"{r['name']:32}{r['published_ms']:8.1f}{r['modelled_ms']:8.1f}{r['published_mb']:8.0f}"
              f"{r['modelled_mb']:8.0f}{r['published_watts']:7.1f}{r['modelled_watts']:7.1f}"
              f"{r['published_joules']:7.2f}{r['modelled_joules']:7.2f}")
        for name, want, got in r["stages"]:
            print(f"  {name:30}{want:8.1f}{got:8.1f}   {got / want:.2f}")
    for r in found["powers"]:
        print(f"{r['name']:55}{r['watts']:6.1f} W, modelled {r['modelled']:5.1f}, {r['modelled'] / r['watts']:.2f}")
    for r in (r for r in found["machines"] if r["target"]):
        print(f"{r['target']:16}{r['plan']:11}{r['scheme']:6}{r['ms']:8.0f} ms, modelled {r['modelled']:8.0f}"
              f"{', fitted' if r['fitted'] else ''}")
    for what, s in found["summary"].items():
        most = f"nine of ten within {s['nine_of_ten']:.2f}, " if s["rows"] >= 10 else ""
        print(f"{what}: {s['rows']} rows, median error {s['median_percent']:.1f} %, {most}all within "
              f"{s['largest']:.2f}")
    for r in found["measured"]["rows"]:
        print(f"{r['board']}@{r['mode']:12}{r['name']:20}{r['measured_ms']:8.1f} ms, modelled {r['modelled_ms']:8.1f}")
    for f in found["measured"]["factors"].values():
        print(f"{f['board']}: {f['bundles']} bundles, factor {f['used']:.4f}")
    if not found["measured"]["rows"]:
        print("profiles/boards: no record of a board so far, nothing is fitted to one")
    print(f"not run on a board here; {RECORD.name} written")


if __name__ == "__main__":
    main()
