"""The models of latency, memory, power and energy beside what others measured, from profiles/board-model.json, which
`python -m benchmarks.board_model` writes. Nothing of it was run on a board here."""

from __future__ import annotations

from docs.figures import MISSING, figures_of, table

RECORD = "profiles/board-model.json"
SOURCE = "Sources, configurations and what each figure includes: `profiles/published`."


def policies() -> str:
    """A row per published policy."""
    found = figures_of(RECORD)
    if not found:
        return MISSING
    rows = [[r["name"], *_pair(r, "ms", "{:.0f}"), *_pair(r, "mb", "{:.0f}"), *_pair(r, "watts", "{:.1f}"),
             *_pair(r, "joules", "{:.2f}"), f"{r['planned_mb']:.0f}"] for r in found["rows"]]
    titles = ["policy", "replan, ms", "ratio", "memory with the system, MB", "ratio", "W", "ratio", "J per replan",
              "ratio", "our plan, MB"]
    said = found["summary"]
    lines = [f"- {what}: median error {said[key]['median_percent']:.1f} %, {_within(said[key])}"
             for what, key in (("latency, nothing fitted to these policies", "latency"),
                               ("latency of their stages", "stages"),
                               ("memory, each policy left out of the fit", "memory"),
                               ("power, each left out", "power"),
                               ("energy, modelled power by modelled latency", "energy"))]
    source = found["source"]
    return table(titles, rows, "Modelled, then published in brackets; the ratio is modelled over published. Memory is "
                 "that of each weight held once, as in the published splits; in the last column, of all engines of "
                 "our plan, which may hold weights twice and have tables. "
                 f"{source['conditions']}; {source['engine']} ({source['source']}, {source['commit'][:7]}).", "",
                 *lines)


def _within(said: dict) -> str:
    every = f"all {said['rows']} within a factor of {said['largest']:.2f}"
    return every if said["rows"] < 10 else f"nine of ten within a factor of {said['nine_of_ten']:.2f}, {every}"


def _pair(row: dict, what: str, form: str) -> tuple[str, str]:
    got, want = row[f"modelled_{what}"], row[f"published_{what}"]
    return f"{form.format(got)} ({form.format(want)})", f"{got / want:.2f}"


def stages() -> str:
    """A row per published stage, the largest misses first."""
    found = figures_of(RECORD)
    rows = sorted(((max(got / want, want / got), r["name"].split(",")[0], name, want, got)
                   for r in found.get("rows", ()) for name, want, got in r["stages"]), reverse=True)
    if not rows:
        return MISSING
    return table(["policy", "stage", "published, ms", "modelled, ms", "ratio"],
                 [[policy, name, f"{want:.1f}", f"{got:.1f}", f"{got / want:.2f}"]
                  for _, policy, name, want, got in rows],
                 "The largest misses first. Published stages have their own host work and launches; ours are grouped "
                 "by name.")


def per_token() -> str:
    """int8 products with a scale per tensor and per token."""
    rows = [[r["name"].split(",")[0], f"{r['fp16_ms']:.0f}", f"{r['static_ms']:.0f}", f"{r['worst_ms']:.0f}",
             f"{100 * (r['worst_ms'] / r['static_ms'] - 1):.0f} %"] for r in figures_of(RECORD).get("per_token", ())]
    if not rows:
        return MISSING
    return table(["policy", "fp16, ms", "int8, static scales, ms", "a scale per token, worst case, ms", "more"], rows,
                 "Of a replan, modelled on an Orin Nano at its fastest mode; the best case of a scale per token is the "
                 "column of static scales.")


def powers() -> str:
    """Powers in other modes and on other boards."""
    found = figures_of(RECORD)
    rows = [[r["name"], r["target"], f"{r['watts']:.1f}", f"{r['modelled']:.1f}", f"{r['modelled'] / r['watts']:.2f}"]
            for r in found.get("powers", ())]
    if not rows:
        return MISSING
    said = found["summary"]["power elsewhere"]
    return table(["published power", "board and mode", "W", "modelled, W", "ratio"], rows,
                 f"None of these rows is fitted to: all within a factor of {said['largest']:.2f}, median error "
                 f"{said['median_percent']:.0f} %. {SOURCE}")


def modes() -> str:
    """Modelled idle and busy power of every mode of every board."""
    from vlacompile.files.toml import shipped
    from vlacompile.hardware.target import load_target, modes_of
    from vlacompile.profile.power import idle_watts, is_extrapolated, power_factor, watts

    rows = []
    for name in shipped("targets"):
        for mode in modes_of(name):
            target = load_target(f"{name}@{mode.name}")
            idle, busy = idle_watts(target), watts(target)
            if idle is not None and busy is not None:
                how = "extrapolated" if is_extrapolated(target) else "published policies"
                rows.append([name, mode.name, f"{mode.busy_mhz:g}", f"{idle:.1f}", f"{busy:.1f}",
                             f"{busy / power_factor(target):.1f} to {busy * power_factor(target):.1f}", how])
    return table(["board", "power mode", "GPU, MHz", "idle, W", "busy, W", "error band, W", "from"], rows,
                 "Modelled: the module with its memory, clocks as under load, without the carrier board.")


def clocks() -> str:
    """What clocks a board holds while it works."""
    found = figures_of(RECORD)
    names = {r["kind"]: r["name"].split(",")[0] for r in found.get("rows", ())}
    rows = [[names[c["kind"]], f"{c['gpu_mhz']:.0f}", f"{c['cpu_mhz']:.0f}", f"{c['gpu_percent']:.0f} %",
             f"{c['over_current_events']:,}"] for c in found.get("clocks", ())]
    if not rows:
        return MISSING
    return table(["policy", "GPU, MHz of 1020", "CPU, MHz of 1728", "GPU load", "over-current events in 300 s"], rows,
                 "Published, of an Orin Nano 8 GB in MAXN_SUPER with clocks pinned at their maximum.")


def boards() -> str:
    """How much faster larger boards are."""
    found = figures_of(RECORD)
    rows = []
    for name, of in (("NX 16 GB", "nx"), ("AGX 64 GB", "agx")):
        if of in found.get("boards", {}):
            ratios = found["boards"][of]
            published = ratios["published"]
            rows.append([name, len(published), f"{published[len(published) // 2]:.2f}",
                         f"{published[0]:.2f} to {published[-1]:.2f}", f"{ratios['modelled']:.2f}"])
    if not rows:
        return MISSING
    return table(["board", "policies", "latency over a Nano's, median", "range", "modelled"], rows,
                 "Published of vla.cpp, another engine (ggml), in each board's fastest mode; modelled: the ratio of "
                 "the GPUs' FP16 rates, which a policy that reads weights or launches small kernels does not reach.")


def measured() -> str:
    """Records of profiles/boards that count, and the factors that follow from them."""
    found = figures_of(RECORD).get("measured", {"rows": [], "factors": {}})
    if not found["rows"]:
        return "No record of a board so far: nothing was run on one, and no factor is fitted.\n"
    rows = [[r["name"], f"{r['board']}@{r['mode']}", f"{r['measured_ms']:.1f}", f"{r['modelled_ms']:.1f}",
             f"{r['measured_ms'] / r['modelled_ms']:.2f}", r["file"]] for r in found["rows"]]
    lines = [f"- {f['board']}: {f['bundles']} bundles, {_factor(f)}" for f in found["factors"].values()]
    return table(["bundle", "board and mode", "replan, ms", "modelled, ms", "ratio", "record"], rows,
                 "Measured by their contributors.", "", *lines)


def _factor(f: dict) -> str:
    if f["fitted"] is None:
        return "too few for a factor"
    return (f"factor {f['fitted']:.2f}; each predicted by the others within a factor of {f['others']:.2f} at the "
            f"median, without it {f['without']:.2f}: {'used' if f['used'] != 1 else 'not used'}")


def other_machines() -> str:
    """Machines that are no Orin, beside other engines' figures."""
    found = figures_of(RECORD)
    names = {r["kind"]: r["name"].split(",")[0] for r in found.get("rows", ())}
    rows = [[r["target"] or "none", names[r["plan"]], r["scheme"], f"{r['ms']:,.0f}",
             "" if r["modelled"] is None else f"{r['modelled']:,.0f}", "yes" if r["fitted"] else "", r["engine"],
             r["about"]] for r in found.get("machines", ())]
    if not rows:
        return MISSING
    return table(["target", "policy", "scheme", "published, ms", "modelled, ms", "rates follow from it", "engine",
                  "what was run"], rows,
                 "Modelled of the plans of [the policies on an Orin Nano](board-model.md); a row without a target is "
                 f"a reference. {SOURCE}")
