"""Blocks on boards: nothing of it was run on one."""

from __future__ import annotations

import json
from collections import defaultdict

from docs.figures import MISSING, ROOT, table

WORDS = {"INT8 products": "INT8", "fused INT4": "INT4", "fused attentions": "attention"}


def rtx() -> str:
    """What NVIDIA's compiler made of a board's bundles: a row per policy, a column per mode, what is not as planned."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    short, compilers = [], set()
    for path in sorted((ROOT / "profiles/rtx").glob("*.json")):
        f = json.loads(path.read_text(encoding="utf-8"))
        compilers |= {f["compiler"]} - {""}
        found[f["policy"]][f["mode"]] = _rtx_cell(f["stages"])
        for s in (s for s in f["stages"] if not s["passed"]):
            why = s["refusal"]["why"] if s["refusal"] else "; ".join(s["faults"])
            short.append(f"- {f['policy']} {f['mode']}, {s['stage']}: {why}")
    if not found:
        return MISSING
    modes = [m for m in ("fp16", "int8", "int4", "int8-fp16") if any(m in row for row in found.values())]
    rows = [[policy.replace("-sized", ", real size"), *(row.get(m, "not measured") for m in modes)]
            for policy, row in found.items()]
    told = ["Not as planned:", "", *short, ""] if short else []
    return table(["policy", *modes], rows, *told,
                 "Stages as planned of all; then, of all stages, what was fused of what was planned. light and heavy: "
                 "the LIBERO-Goal pair; the others: LeRobot's policies with random weights, at small widths where no "
                 f"size is said. {', '.join(sorted(compilers))}, target SM86; run on no board.")


def _rtx_cell(stages: list[dict]) -> str:
    counts = {word: [sum(s["counts"][what][k] for s in stages if s["counts"]) for k in ("found", "planned")]
              for what, word in WORDS.items()}
    good = f"{sum(s['passed'] for s in stages)} of {len(stages)}"
    return "; ".join([good, *(f"{w} {n} of {all_}" for w, (n, all_) in counts.items() if all_)])


def int8_attention() -> str:
    """What NVIDIA's compiler makes of an attention whose products are in int8."""
    path = ROOT / "profiles/attention/int8.json"
    if not path.is_file():
        return MISSING
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [[r["what"], r["form"], "yes" if r["fused"] else "no", r["kernels"], f"{r['between_bytes'] / 1e6:.1f}"]
            for r in found["rows"]]
    compilers = ", ".join(sorted({r["compiler"] for r in found["rows"]}))
    return table(["attention", "in", "one kernel", "kernels", "MB between kernels"], rows,
                 f"{compilers}, compute capability {found['capability']}; run on no board.")


def boards() -> str:
    """The boards and their power modes, from targets/*.toml and what follows from them."""
    from vlacompile.files.toml import shipped
    from vlacompile.hardware.target import load_target, modes_of

    rows = []
    for name in shipped("targets"):
        target = load_target(name)
        for mode in modes_of(name) if target.board is not None else ():
            default = " (default)" if mode.name == target.power.name else ""
            gpu = target.board.gpu
            rows.append([name, mode.name + default, mode.sms, f"{mode.gpu_mhz:g}", f"{mode.tops('fp16', gpu):.1f}",
                         f"{mode.tops('int8', gpu):.1f}", f"{mode.dram_gbps(target.board.memory):.0f}",
                         f"{target.board.memory.usable_bytes / 1e6:.0f}"])
    titles = ["board", "power mode", "SMs", "GPU, MHz", "dense FP16, TOPS", "dense INT8, TOPS", "memory, GB/s",
              "usable memory, MB"]
    return table(titles, rows, "Computed from datasheets and clocks, of the GPU alone; not measured.")


def fit() -> str:
    """What the fit planner says of recorded policies: memory, and what it decides per stage."""
    rows = []
    for path in sorted((ROOT / "profiles/fit").glob("*.json")):
        f = json.loads(path.read_text(encoding="utf-8"))
        schemes: dict[str, list[str]] = defaultdict(list)
        for s in f["stages"]:
            schemes[s["scheme"]].append(s["stage"])
        most = max(schemes, key=lambda x: len(schemes[x]))
        others = [f"{', '.join(names)} {scheme}" for scheme, names in schemes.items() if scheme != most]
        others += [f"{s['stage']} as a loop of {s['layers']} layers" for s in f["stages"] if s.get("layers")]
        weights = sum(s["weights"] for s in f["stages"]) / 1e9
        rows.append([f["policy"], f["board"], f"{f['spare'] / 1e6:.0f}", f["moment"], f"{weights:.1f}",
                     "; ".join([*others, f"the rest {most}" if others else most])])
    return table(["policy", "board", "spare MB", "most memory is needed", "engines, GB", "precisions"], rows,
                 "Modelled from shapes, not run on a board; instructions not known in advance.")


def moments() -> str:
    """Every moment of the plan of 3.3 billion weights in fp16 on 8 GB."""
    f = json.loads((ROOT / "profiles/fit/pi05-libero-orin-nano-8gb.json").read_text(encoding="utf-8"))
    rows = [[moment, f"{size / 1e6:.0f}"] for moment, size in f["moments"]]
    deep = [s for s in f["stages"] if s["layers"]]
    said = "; ".join(f"{s['stage']}: {s['depth']['looped_build'] / 1e6:.0f} MB to build instead of "
                     f"{s['depth']['unrolled_build'] / 1e6:.0f}, {s['depth']['launches']} more launches" for s in deep)
    return table(["moment", "MB"], rows, f"Of {f['usable'] / 1e6:.0f} MB that are usable; modelled from shapes, not "
                 f"run on a board. {said}.")


def held_out_rows() -> str:
    """Latencies on boards that others published, beside what the model says."""
    from vlacompile.profile.published import band, held_out

    rows = [[c.row.name, c.row.target, f"{c.row.ms:.3g}", f"{c.modelled:.3g}", f"{c.ratio:.2f}"] for c in held_out()]
    return table(["published latency", "board", "ms", "modelled, ms", "ratio"], rows,
                 f"Nine of ten are within a factor of {band():.2f}. Nothing was run on a board here; sources: "
                 "`vlacompile/profile/published.py`.")
