"""Work read from a bundle's graphs, times modelled from it, times measured, and what two measurements say."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import subprocess
from pathlib import Path

import onnx
import pytest

from vlacompile.files.toml import shipped
from vlacompile.hardware.target import load_target, modes_of
from vlacompile.profile.jetson_sensors import Reading
from vlacompile.profile.kernel_work import work_of
from vlacompile.profile.measure import (
    ROUND,
    SIGNIFICANT,
    Profile,
    Series,
    compare_profiles,
    measure,
    measure_together,
    place_of,
    read_of,
    read_profile,
    write_profile,
)
from vlacompile.profile.modelled_bundle import modelled_for
from vlacompile.profile.power import EXTRAPOLATED_FACTOR, idle_watts, voltage, watts
from vlacompile.profile.published import ENGINE_KERNELS, ENGINE_WEIGHTS, band, bands
from vlacompile.profile.roofline import ENGINE_SCRATCH_BYTES, WhatIf, model
from vlart.bundle.directory import GOLDEN_FILE
from vlart.errors import BundleError, ConfigError
from vlart.verify.frames import read_frames

ROOT = Path(__file__).parents[2]
NANO = "orin-nano-8gb@15w"


@pytest.mark.parametrize("which", ["late_fusion_bundle", "flow_bundle"])
def test_work_is_the_plans(which, request):
    """The graphs' products are what the compiler counted before it emitted them."""
    bundle = request.getfixturevalue(which)
    for stage, work in zip(bundle.plan.stages, work_of(bundle), strict=True):
        assert (work.stage, work.iterations) == (stage.name, stage.iterations)
        assert work.of("operations") == stage.flops * stage.iterations
        # small ones are no weights of the plan
        assert stage.weight_bytes <= work.constants <= 1.05 * stage.weight_bytes + 4096
        assert sum(k.stored for k in work.kernels) <= work.constants
        assert all(k.kind in ("linear", "conv", "attention", "embedding", "depthwise") for k in work.kernels)


def test_a_damaged_stage_is_named(late_fusion_bundle, tmp_path):
    plan = late_fusion_bundle.plan
    (tmp_path / "stages").mkdir()
    for file in plan.files:
        (tmp_path / file.path).parent.mkdir(exist_ok=True)
        (tmp_path / file.path).write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match="cannot be read"):
        work_of(dataclasses.replace(late_fusion_bundle, path=tmp_path))


def on(bundle, target: str = NANO, **what):
    return model(bundle.plan, work_of(bundle), load_target(target), WhatIf(**what))


def test_what_an_instruction_alone_decides_is_in_new_only(late_fusion_bundle):
    found = on(late_fusion_bundle)
    assert 0 < found.same < found.new
    kept = [s for s in found.stages if not s.every]
    assert found.new - found.same == pytest.approx(sum(s.total for s in kept)) and kept


def test_fewer_bits_and_higher_clocks_never_take_longer(late_fusion_bundle):
    times = [on(late_fusion_bundle, precision=p).new for p in ("fp32", "fp16", "int8")]
    assert times == sorted(times, reverse=True)
    clocks = [on(late_fusion_bundle, f"orin-nano-8gb@{m}").new for m in ("7w", "15w", "25w", "maxn-super")]
    assert clocks == sorted(clocks, reverse=True)
    sizes = {p: on(late_fusion_bundle, precision=p).memory for p in ("fp32", "fp16", "int8", "int4")}
    assert sizes["fp32"] > sizes["fp16"] > max(sizes["int8"], sizes["int4"]), "int4 leaves convolutions in fp16"


def test_iterations_scale_the_loop_alone(flow_bundle):
    once, thrice = on(flow_bundle, iterations=1), on(flow_bundle, iterations=3)
    launch = load_target(NANO).launch.overhead_us
    for a, b, stage in zip(once.stages, thrice.stages, flow_bundle.plan.stages, strict=True):
        times = 3 if stage.iterations > 1 else 1
        assert b.total - launch == pytest.approx(times * (a.total - launch))
    assert any(s.iterations > 1 for s in flow_bundle.plan.stages)


def test_cameras(late_fusion_bundle):
    one, three = on(late_fusion_bundle, cameras=1), on(late_fusion_bundle, cameras=3)
    grown = {a.stage: b.total / a.total for a, b in zip(one.stages, three.stages, strict=True)}
    assert sorted({round(x, 6) for x in grown.values()}) == [1.0, 3.0]
    engine = next(s.weights for s in one.stages if grown[s.stage] > 2)
    assert three.memory - one.memory == 2 * engine > 0


def test_every_modelled_figure_has_a_band():
    """Each is the miss of rows that the model was not made from; NVIDIA's compiler's are those that are recorded."""
    factors, records = bands(), [json.loads(f.read_text()) for f in sorted((ROOT / "profiles" / "rtx").glob("*.json"))]
    assert factors.time == band() and factors.joules == pytest.approx(factors.time * EXTRAPOLATED_FACTOR)
    held = [sum(s["weight_bytes"] for s in r["stages"]) / sum(s["weight_bytes_planned"] for s in r["stages"])
            for r in records]
    assert ENGINE_WEIGHTS[0] - 5e-4 < min(held) and max(held) < ENGINE_WEIGHTS[1] + 5e-4 and len(records) >= 6
    (light,) = (r for r in records if r["policy"] == "light" and r["mode"] == "fp16")
    assert {s["stage"]: s["kernels"] for s in light["stages"]} == {n: k for n, (_, k) in ENGINE_KERNELS.items()}
    scratch = {s["activation_bytes"]: s["weight_bytes"] for r in records for s in r["stages"]}
    least = min(n for n in scratch if n)
    assert least > 0.97 * ENGINE_SCRATCH_BYTES, "no engine with products asks for less"
    assert scratch.get(0, 0) < 1000, "one without asks for none"


def test_launches_and_scratch_are_a_boards(late_fusion_bundle):
    board, here = on(late_fusion_bundle), on(late_fusion_bundle, "host")
    assert board.scratch == ENGINE_SCRATCH_BYTES and here.scratch == 0
    assert board.memory - here.memory == ENGINE_SCRATCH_BYTES
    for stage, work in zip(board.stages, work_of(late_fusion_bundle), strict=True):
        assert stage.products == work.iterations * len(work.kernels) and stage.read == work.of("stored")


def test_a_target_without_rates_is_refused(late_fusion_bundle):
    with pytest.raises(ConfigError, match="the latency in fp32 is unknown"):
        on(late_fusion_bundle, "host-aarch64")


@pytest.mark.parametrize("target", ["host", "raspberry-pi-5", "nuc"])
def test_a_processor_without_fp16_computes_the_rest_in_fp32(late_fusion_bundle, target):
    """Attention and convolutions that have no kernel of fewer bits; int4 where it has no rate is refused."""
    wide, narrow = (on(late_fusion_bundle, target, precision=p) for p in ("fp32", "int8"))
    assert 0 < narrow.same != wide.same and narrow.weights < wide.weights
    found = modelled_for(late_fusion_bundle, [target], WhatIf())
    assert {"all fp32", "all int8"} <= set(found["else"]) and "all fp16" not in found["else"]
    if target != "host":
        with pytest.raises(ConfigError, match="the latency in int4 is unknown"):
            on(late_fusion_bundle, target, precision="int4")


def test_power_follows_the_clocks():
    """Of the load with SMs, clock and voltage; of idle with the memory's clock; unknown where no board is."""
    target = load_target("orin-nano-8gb@15w")

    def at(**changes) -> float:
        return watts(dataclasses.replace(target, power=dataclasses.replace(target.power, **changes)))

    idle = idle_watts(target)
    assert at(gpu_mhz=1e-9) == pytest.approx(idle) and idle < watts(target)
    assert at(gpu_mhz=306) - idle == pytest.approx((watts(target) - idle) / 2), "flat voltage: linear"
    assert at(gpu_mhz=1224) - idle == pytest.approx(2 * voltage(1224) ** 2 * (watts(target) - idle)) and voltage(
        1224) > 1.2
    assert at(sms=4) - idle == pytest.approx((watts(target) - idle) / 2)
    assert at(emc_mhz=3199) - at() == pytest.approx(idle_watts(load_target("orin-nano-8gb@25w")) - idle)
    assert watts(load_target("host")) is None


@pytest.mark.parametrize("name", [n for n in shipped("targets") if modes_of(n)])
def test_a_mode_draws_about_what_it_is_called(name):
    """NVIDIA names modes by what the module may draw: nothing here was fitted to the names."""
    for mode in modes_of(name):
        power = watts(load_target(f"{name}@{mode.name}"))
        if power is not None and (called := re.fullmatch(r"(\d+)w", mode.name)):
            assert power < 1.31 * float(called[1]), mode.name


def test_measured_replans(late_fusion_bundle, tmp_path):
    done: list[int] = []
    found = measure(late_fusion_bundle, replans=20, warm_up=5, progress=done.append)
    assert done == list(range(1, 26)) and found.hash == late_fusion_bundle.hash
    assert len(found.series["same"].us) == 16 and len(found.series["new"].us) == 4
    stages = {n.removeprefix("stage ") for n in found.series if n.startswith("stage ")}
    assert stages == {s.name for s in late_fusion_bundle.plan.stages}
    assert len(found.series["stage language"].us) == 4 and found.before == Reading(
        cpu_mhz=found.before.cpu_mhz, memory_mb=found.before.memory_mb), "no board's sensors here"
    assert 10 < found.before.memory_mb < 1e7 and found.fared() == "" and 1 <= len(found.during) <= 2
    write_profile(found, tmp_path / "new" / "p.json")
    again = read_profile(tmp_path / "new" / "p.json")
    assert again.series.keys() == found.series.keys() and again.machine == found.machine
    assert again.during == found.during
    assert again.series["same"].median == pytest.approx(found.series["same"].median, abs=0.01)


def test_several_are_measured_in_turns(late_fusion_bundle, flow_bundle, tmp_path, monkeypatch):
    """Rounds alternate and change their order; each bundle has as many replans as the other in every pair of rounds."""
    from vlacompile.profile import measure as module

    order, replan = [], module.MeasuredSession.replan
    monkeypatch.setattr(module.MeasuredSession, "replan", lambda run: (order.append(run.bundle.plan.name), replan(run)))
    a, b = measure_together([late_fusion_bundle, flow_bundle], replans=25, warm_up=10)
    names = late_fusion_bundle.plan.name, flow_bundle.plan.name
    first = [n for i in range(0, 30, ROUND) for n in (names if i // ROUND % 2 == 0 else names[::-1])
             for _ in range(ROUND)]
    assert order[:60] == first and order.count(names[0]) == order.count(names[1]) == 35
    assert (a.hash, b.hash) == (late_fusion_bundle.hash, flow_bundle.hash) and a.alternated and b.alternated
    assert sum(len(a.series[n].us) for n in ("same", "new")) == 25 and not measure(flow_bundle, replans=1).alternated
    for p in (a, b):
        write_profile(p, place_of(p, tmp_path))
    assert read_of(tmp_path, flow_bundle).series.keys() == b.series.keys()
    assert (tmp_path / flow_bundle.plan.target / f"{flow_bundle.hash[:16]}.json").is_file()


def test_what_is_slower_in_turns_is_found_slower(late_fusion_bundle, tmp_path, monkeypatch):
    """The same bundle twice is no difference but by chance; with a millisecond more in every step it is one."""
    import time

    from vlart.runtime.session import Session

    step, slow = Session.step, set()

    def late(session, *arguments):
        if id(session) in slow:
            time.sleep(1e-3)
        step(session, *arguments)

    opened, init = [], Session.__init__

    def remembered(session, *arguments, **options):
        init(session, *arguments, **options)
        opened.append(session)
        if len(opened) == 2:
            slow.add(id(session))

    monkeypatch.setattr(Session, "step", late)
    monkeypatch.setattr(Session, "__init__", remembered)
    a, b = measure_together([late_fusion_bundle, late_fusion_bundle], replans=40, warm_up=5)
    found = {d.series: d for d in compare_profiles(a, b)}
    assert found["same"].p < SIGNIFICANT and found["same"].second > found["same"].first + 900


@pytest.mark.parametrize("text, why", [("", "JSONDecodeError"), ("{}", "version"), ('{"version": 99}', "version 99"),
                                       ('{"version": 1}', "KeyError"), ("[1]", "TypeError")])
def test_a_file_that_is_no_profile(tmp_path, text, why):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(BundleError, match="cannot be read") as found:
        read_profile(tmp_path / "p.json")
    assert why in str(found.value)


def test_series_shares():
    s = Series(tuple(float(x) for x in range(100, 0, -1)))
    assert (s.median, s.at(0.95), s.at(0.99), s.at(1.0)) == (50.5, 96.0, 100.0, 100.0)


def test_a_difference_is_told_from_chance(late_fusion_bundle):
    draw = random.Random(0)
    base = measure(late_fusion_bundle, replans=5, warm_up=0)

    def drawn(scale: float):
        return dataclasses.replace(base,
                                   series={"same": Series(tuple(scale * draw.uniform(1, 1.2) for _ in range(60)))})
    alike, = compare_profiles(drawn(100), drawn(100))
    slower, = compare_profiles(drawn(100), drawn(110))
    assert alike.p > SIGNIFICANT and slower.p < SIGNIFICANT and slower.ratio == pytest.approx(1.1, abs=0.03)


def test_turns_are_compared_as_pairs(late_fusion_bundle):
    """A drift that both share hides a difference from the times, not from the pairs of turns; a walk of each by itself,
    in which times that follow each other are alike, is no difference."""
    base = measure(late_fusion_bundle, replans=5, warm_up=0)
    draw = random.Random(1)

    def profile(us) -> Profile:
        return dataclasses.replace(base, series={"write": Series(tuple(us))}, replans=200, alternated=True)
    drift = [100 + 40 * (i // ROUND) for i in range(200)]
    first, second = (profile(scale * x + draw.random() for x in drift) for scale in (1.0, 1.02))
    (turns,) = compare_profiles(first, second)
    (times,) = compare_profiles(dataclasses.replace(first, alternated=False), second)
    assert turns.turns and turns.p < SIGNIFICANT and not times.turns and times.p > SIGNIFICANT
    false = {True: 0, False: 0}
    for _ in range(40):
        walks = [profile(100 + draw.gauss(0, 10) * (i % ROUND == 0) + level for i, level in enumerate(
            x for _ in range(20) for x in [draw.gauss(0, 10)] * ROUND)) for _ in range(2)]
        for alternated in (True, False):
            (d,) = compare_profiles(*(dataclasses.replace(w, alternated=alternated) for w in walks))
            false[alternated] += d.p < SIGNIFICANT
    assert false[True] <= 3 < false[False]
    (same,) = compare_profiles(first, first)
    assert same.p == 1.0 and same.turns


def test_profile_verb(cli, late_fusion_bundle, tmp_path):
    code, out, _ = cli("profile", late_fusion_bundle.path, "-t", NANO, "--json")
    document = json.loads(out)
    assert code == 0 and [m["target"].partition("+")[0] for m in document["modelled"][:1]] == [NANO]
    assert 1.2 < document["band"] < 1.6 and len(document["modelled"]) > 5
    code, out, _ = cli("profile", late_fusion_bundle.path, "-t", NANO)
    assert code == 0 and "modelled, not measured on a board" in out and "all int8" in out
    assert max(map(len, out.splitlines())) <= 80
    for name in ("a.json", "b.json"):
        code, out, _ = cli("profile", late_fusion_bundle.path, "--measure", "--replans", "20", "-o", tmp_path / name)
        assert code == 0 and "replan, same instruction" in out and "GPU" not in out
    code, out, _err = cli("profile", "--compare", tmp_path / "a.json", tmp_path / "b.json")
    words = " ".join(out.split())
    assert code == 0 and "both are of one bundle" in words and "Mann-Whitney U on all times" in words
    assert max(map(len, out.splitlines())) <= 80
    for kind in ("same", "new"):
        assert re.search(rf"replan, {kind} instruction: (no significant difference|the second is \d+ % )",
                         words)


def test_a_loops_times_say_how_many_iterations_they_are_of(cli, flow_bundle):
    stage = next(s for s in flow_bundle.plan.stages if s.iterations > 1)
    code, out, _err = cli("profile", flow_bundle.path, "--measure", "--replans", "5")
    assert code == 0 and f"{stage.name}, {stage.iterations} iterations" in out
    assert max(map(len, out.splitlines()[1:])) <= 100  # the first names a path and this processor


def test_every_what_if_reads_well(cli, late_fusion_bundle, flow_bundle):
    """Power mode, cameras, h, K and precision: asked for, and as rows beside what was asked."""
    def rows(bundle, *more):
        code, out, err = cli("profile", bundle.path, "-t", NANO, *more)
        assert code == 0 and max(map(len, out.splitlines())) <= 80, (out, err)
        return out

    out = rows(late_fusion_bundle)
    for words in ("mode 7w", "1 camera ", "3 cameras", "h = 5 of 10 actions", "all int4", "actions/s"):
        assert words in out, words
    assert "K = " not in out
    assert f"K = {max(s.iterations for s in flow_bundle.plan.stages) // 2} iterations" in rows(flow_bundle)
    assert "all layers int8, 3 cameras, h = 2 actions per chunk" in rows(
        late_fusion_bundle, "--precision", "int8", "--cameras", "3", "--execute", "2")
    assert "4 iterations of loops" in rows(flow_bundle, "--iterations", "4")


def test_actions_that_are_executed_change_the_rate_alone(late_fusion_bundle):
    few, many = on(late_fusion_bundle, execute=1), on(late_fusion_bundle, execute=10)
    assert few.same == many.same and many.actions_per_s == pytest.approx(10 * few.actions_per_s)
    assert many.actions_per_s == pytest.approx(1e6 * 10 / many.same)
    with pytest.raises(ConfigError, match="11 actions cannot be executed"):
        on(late_fusion_bundle, execute=11)


def test_two_bundles_in_one_command(cli, late_fusion_bundle, flow_bundle, tmp_path):
    code, out, err = cli("profile", late_fusion_bundle.path, flow_bundle.path, "--replans", "20", "-o",
                         f"{tmp_path}/kept/")
    assert code == 0 and max(map(len, [x for x in out.splitlines() if ".vlab" not in x])) <= 80
    assert f"{flow_bundle.path} compared with {late_fusion_bundle.path}" in out
    assert "measured in alternating rounds of 10" in out
    assert len(list((tmp_path / "kept" / "host").glob("*.json"))) == 2
    code, out, err = cli("profile", late_fusion_bundle.path, flow_bundle.path, "--replans", "20", "--json")
    document = json.loads(out)
    assert [b["hash"] for b in document["bundles"]] == [late_fusion_bundle.hash, flow_bundle.hash]
    (difference,) = document["differences"]
    assert difference["same_machine"] and {"same", "write"} <= {d["series"] for d in difference["series"]}
    code, out, err = cli("report", flow_bundle.path, "--profile", tmp_path / "kept", "--no-replay", "-o",
                         tmp_path / "r.html")
    assert code == 0, err


@pytest.mark.parametrize("arguments, words", [
    (("BUNDLE", "BUNDLE", "--measure", "-o", "x.json"), "-o is one file"),
    (("BUNDLE", "BUNDLE", "-o", "x/"), "are the same"),
    (("BUNDLE", "-t", NANO, "-o", "x.json"), "nothing is measured"),
    (("BUNDLE", "-t", NANO, "--execute", "99"), "a chunk has 10"),
    ((), "no bundle is named"), (("BUNDLE",), "nothing to do"), (("BUNDLE", "-t", "orin-nano-9gb"), "orin-nano-8gb"),
    (("BUNDLE", "-t", "host-aarch64"), "in fp32 is unknown"), (("--compare", "x.json", "y.json"), "cannot be read")])
def test_profile_verb_says_what_is_wrong(cli, late_fusion_bundle, arguments, words):
    code, _out, err = cli("profile", *(late_fusion_bundle.path if a == "BUNDLE" else a for a in arguments))
    assert code != 0 and words in err and "fix:" in err


def test_an_op_is_not_lost_from_the_count(late_fusion_bundle, tmp_path):
    """A graph whose product was taken away is told apart from the plan."""
    stage = next(s for s in late_fusion_bundle.plan.stages if s.name == "language")
    file = late_fusion_bundle.plan.files[stage.artefact].path
    for f in late_fusion_bundle.plan.files:
        (tmp_path / f.path).parent.mkdir(exist_ok=True)
        (tmp_path / f.path).write_bytes((late_fusion_bundle.path / f.path).read_bytes())
    model_ = onnx.load(tmp_path / file, load_external_data=False)
    product = next(n for n in model_.graph.node if n.op_type in ("MatMul", "Gemm"))
    model_.graph.node.remove(product)
    (tmp_path / file).write_bytes(model_.SerializeToString())
    work = {w.stage: w for w in work_of(dataclasses.replace(late_fusion_bundle, path=tmp_path))}
    assert work["language"].of("operations") < stage.flops


def vlart_run(bundle, *arguments):
    from tests.deploy.board import RUNTIME
    from tests.runtime_c.running import ort_path

    command = [RUNTIME / "vlart-run", bundle.path, "--ort", ort_path(), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_vlart_run_writes_a_profile(cli, late_fusion_bundle, flow_bundle, tmp_path):
    """A machine without Python: the same record, of the same bundle, that report and --compare read."""
    done = vlart_run(late_fusion_bundle, "--profile", tmp_path / "c.json", "--warm-up", "1", "--repeat", "4")
    assert done.returncode == 0, done.stderr
    with pytest.raises(BundleError, match="cannot be read"):
        (tmp_path / "none.json").write_text((tmp_path / "c.json").read_text().replace('"files"', '"flies"'))
        read_profile(tmp_path / "none.json")
    found = read_of(tmp_path / "c.json", late_fusion_bundle)
    frames = len(read_frames(late_fusion_bundle.path / GOLDEN_FILE))
    assert found.warm_up == frames
    assert found.hash == late_fusion_bundle.hash != read_of(tmp_path / "c.json", flow_bundle).hash
    assert found.replans == 4 * frames and len(found.series["write"].us) == 4 * frames
    assert len(found.series["same"].us) + len(found.series["new"].us) == 4 * frames
    language = late_fusion_bundle.plan.stages[[s.name for s in late_fusion_bundle.plan.stages].index("language")]
    assert len(found.series["new"].us) == len(found.series[f"stage {language.name}"].us) > 0
    assert found.machine["cores"] > 0 and found.machine["architecture"] and found.threads == 1
    code, out, err = cli("report", late_fusion_bundle.path, "--no-replay", "--profile", tmp_path / "c.json", "-o",
                         tmp_path / "r.html")
    assert code == 0 and "by vlart-run" in (tmp_path / "r.html").read_text(), err
    code, out, err = cli("report", flow_bundle.path, "--no-replay", "--profile", tmp_path / "c.json", "-o",
                         tmp_path / "r.html")
    assert code == 3 and "another bundle" in err
    code, out, err = cli("profile", "--compare", tmp_path / "c.json", tmp_path / "c.json")
    assert code == 0 and "both are of one bundle" in " ".join(out.split())


def test_vlart_run_says_why_there_is_no_profile(late_fusion_bundle, tmp_path):
    done = vlart_run(late_fusion_bundle, "--profile", tmp_path / "no" / "folder.json", "--repeat", "1")
    assert done.returncode == 1 and "the profile cannot be written" in done.stderr and "No such file" in done.stderr
    done = vlart_run(late_fusion_bundle, "--profile", tmp_path / "c.json", "--self-test")
    assert done.returncode == 2 and "--profile with --self-test" in done.stderr
    assert vlart_run(late_fusion_bundle, "--warm-up", "x").returncode == 2
    done = vlart_run(late_fusion_bundle, "--warm-up", "3", "--repeat", "1", "--json")
    frames = len(read_frames(late_fusion_bundle.path / GOLDEN_FILE))
    assert done.returncode == 0 and json.loads(done.stdout)["step"]["runs"] == frames, "the warm-up is not counted"
