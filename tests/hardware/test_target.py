"""Targets: boards, their modes and software, what is derived from them, and recipes that a board cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlacompile.cli.main import main
from vlacompile.files.toml import shipped
from vlacompile.hardware.board import sources_of
from vlacompile.hardware.target import load_target, modes_of
from vlacompile.recipe.recipe import load_recipe
from vlart.errors import ConfigError

ORIN = ("orin-nano-4gb", "orin-nano-8gb", "orin-nx-8gb", "orin-nx-16gb", "agx-orin-32gb", "agx-orin-64gb")
BOARDS = [name for name in shipped("targets") if modes_of(name)]
NANO = Path("targets/orin-nano-8gb.toml")


def test_shipped_boards():
    assert sorted(BOARDS) == sorted([*ORIN, "jetson-thor", "rtx-4090"])
    assert list(shipped("targets/software")) == ["jetpack-6.2", "jetpack-7.2", "tensorrt-10.16"]
    assert all(load_target(n).board is None for n in ("host", "host-aarch64", "nuc", "raspberry-pi-5"))


@pytest.mark.parametrize("name", BOARDS)
def test_every_fact_has_a_source(name):
    for mode in modes_of(name):
        target = load_target(f"{name}@{mode.name}")
        facts = [*sources_of(target.board), *sources_of(target.power), *sources_of(target.software)]
        absent = {"gpu.l2_source": target.board.gpu.l2_mib, "held_source": target.power.held_mhz,
                  "gpu.fp16_share_source": target.board.gpu.fp16_share}
        assert len(facts) >= 8
        assert all(len(text) > 10 for place, text in facts if absent.get(place, 1) is not None)
        assert (target.board.gpu.compute_capability == 87) == (name in ORIN) and target.backend == "tensorrt"
        assert target.board.gpu.compute_capability in target.software.compute_capabilities
        assert "modelled" in target.rates.source and "modelled" in target.launch.source


# Peaks of the GPU alone that NVIDIA's figures come to: SMs x 4096 (2048) x clock. NX's advertised 50 and 78 hold a DLA.
@pytest.mark.parametrize(("selection", "int8", "fp16", "gbps"), [
    ("orin-nano-4gb@maxn-super", 16.7, 8.4, 51), ("orin-nano-8gb@15w", 20.1, 10.0, 68),
    ("orin-nano-8gb@25w", 30.1, 15.0, 102), ("orin-nano-8gb@maxn-super", 33.4, 16.7, 102),
    ("orin-nx-8gb@maxn-super", 38.4, 19.2, 102.4), ("orin-nx-16gb@maxn-super", 38.4, 19.2, 102.4),
    ("orin-nx-16gb@10w", 10.0, 5.0, 68), ("agx-orin-64gb@maxn", 85.2, 42.6, 204.8), ("jetson-thor", 516, 258, 273),
    ("rtx-4090", 661, 330, 1008)])
def test_derived_peaks(selection, int8, fp16, gbps):
    target = load_target(selection)
    found = {s: target.power.tops(s, target.board.gpu) for s in ("int8", "fp16", "int4")}
    assert found["int8"] == pytest.approx(int8, rel=0.01)
    assert found["fp16"] == found["int4"] == pytest.approx(fp16, rel=0.01)
    assert target.power.dram_gbps(target.board.memory) == pytest.approx(gbps, rel=0.01)


def test_low_modes_switch_sms_off():
    full = {m.name: m.sms for m in modes_of("orin-nx-16gb")}
    assert full == {"10w": 4, "15w": 4, "25w": 8, "40w": 8, "maxn-super": 8}
    assert {m.name: m.sms for m in modes_of("orin-nano-8gb")}["7w"] == 4


def test_advertised_figures_of_nx_hold_more_than_the_gpu():
    for name in ("orin-nx-8gb", "orin-nx-16gb"):
        target = load_target(f"{name}@maxn-super")
        assert target.board.marketing_tops / 2 > 1.4 * target.power.tops("int8", target.board.gpu)
        assert "DLA" in target.board.marketing_source
    nano = load_target("orin-nano-8gb@maxn-super")
    assert nano.board.marketing_tops / 2 == pytest.approx(nano.power.tops("int8", nano.board.gpu), rel=0.02)


def test_a_clock_that_a_board_holds_is_below_its_maximum(tmp_path):
    mode = load_target("orin-nano-8gb@maxn-super").power
    assert 0.98 * mode.gpu_mhz < mode.busy_mhz < mode.gpu_mhz and "over-current" in mode.held_source
    assert load_target("orin-nano-8gb@15w").power.busy_mhz == 612
    for change, what in (("held_mhz = 1010", "held_mhz = 1030"), ("held_source =", "# held_source =")):
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(NANO.read_text(encoding="utf-8").replace(change, what), encoding="utf-8")
        with pytest.raises(ConfigError, match="held_"):
            load_target(str(wrong))


@pytest.mark.parametrize(("selection", "fix"), [
    ("jetson-thor+jetpack-6.2", "jetson-thor+jetpack-7.2"), ("rtx-4090+jetpack-7.2", "rtx-4090+tensorrt-10.16"),
    ("orin-nano-8gb+tensorrt-10.16", "orin-nano-8gb+jetpack-6.2")])
def test_software_is_for_a_kind_of_gpu(selection, fix):
    """What a refusal recommends is accepted."""
    with pytest.raises(ConfigError, match="is not for") as caught:
        load_target(selection)
    assert fix in caught.value.fix and load_target(fix).software


def test_machines_with_processors_alone():
    """Their rates are others' figures, scaled; a Pi is slower than a NUC, and both are faster in int8."""
    pi, nuc = load_target("raspberry-pi-5"), load_target("nuc")
    assert (pi.processor, nuc.processor) == ("aarch64", "x86_64")
    for target in (pi, nuc):
        assert target.rates.int8.linear_gflops > 2 * target.rates.fp32.linear_gflops
        assert "not measured here" in target.rates.source and "not run here" in target.description
        assert target.rates.fp16 is target.rates.int4 is None
    assert nuc.rates.fp32.linear_gflops > 5 * pi.rates.fp32.linear_gflops
    assert load_target("rtx-4090").processor == "x86_64" and load_target("jetson-thor").processor == "aarch64"


def test_tvm_compiles_for_orin_alone(tmp_path):
    wrong = tmp_path / "gpu.toml"
    wrong.write_text('name = "gpu"\ndescription = "TVM on a GPU"\n[stages]\ntvm = ["*"]\ntvm_device = "gpu"\n',
                     encoding="utf-8")
    assert load_recipe(str(wrong), load_target("orin-nano-8gb+jetpack-7.2"))
    with pytest.raises(ConfigError, match="tvm_device") as caught:
        load_recipe(str(wrong), load_target("jetson-thor"))
    assert "sm_87" in caught.value.why


def test_selection():
    default, chosen = load_target("orin-nano-8gb"), load_target("orin-nano-8gb@15w+jetpack-7.2")
    assert default.name == "orin-nano-8gb@25w+jetpack-6.2"
    assert (chosen.power.name, chosen.software.tensorrt, chosen.software.cuda) == ("15w", "10.16", "13.2")
    assert load_target("orin-nano-8gb+jetpack-7.2").power == default.power
    assert load_target(f"{NANO}@15w") == load_target("orin-nano-8gb@15w")


@pytest.mark.parametrize(("selection", "what", "why"), [
    ("orin-nano-8g", 'no target is called "orin-nano-8g"', 'did you mean "orin-nano-8gb"?'),
    ("orin-nano-8gb@25", 'no mode is called "25"', 'did you mean "25w"?'),
    ("orin-nano-8gb+jetpack-7.1", 'no software is called "jetpack-7.1"', 'did you mean "jetpack-7.2"?'),
    ("host@15w", '"host@15w" has no modes', "only a board")])
def test_misspelt_selections(selection, what, why):
    with pytest.raises(ConfigError) as caught:
        load_target(selection)
    assert what in caught.value.what and why in caught.value.why


@pytest.mark.parametrize(("old", "new", "what"), [
    ("sms = 8\nshared", "sms = 0\nshared", "board.gpu.sms = 0"),
    ("gpu_mhz = 918", "gpu_mhz = inf", 'mode "25w".gpu_mhz = inf'),
    ("os_mib = 929", "os_mib = 9999", "board.memory.os_mib = 9999"),
    ('name = "25w"', 'name = "15w"', "two modes share a name"),
    ('l2_source = "', 'l2_source = "" #', "board.gpu.l2_source is empty"),
    ("gpu_mhz = 918\nsms = 8", "gpu_mhz = 918\nsms = 9", 'mode "25w".sms = 9'),
    ('default_mode = "25w"', 'default_mode = "26w"', 'no mode is called "26w"'),
    ('default_mode = "25w"', "", 'key "default_mode" is missing'),
    ("[board]", "[launch]\noverhead_us = 1.0\ngflops = 1.0\nsource = ''\n[board]", "a board has [launch] or [rates]"),
    ("visible_mib = 7607", "", 'key "board.memory.visible_mib" is missing'),
    ('backend = "tensorrt"', 'backend = "tensorflow"', 'backend "tensorflow" does not exist')])
def test_wrong_facts_are_refused(tmp_path, old, new, what):
    text = NANO.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_target(str(path))
    assert what in caught.value.what


def recipe(tmp_path, body: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\ndescription = ""\n[precision]\n{body}\n', encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("body", "scheme"), [
    ('layers = "fp8"', "fp8"), ('layers = "nvfp4"', "nvfp4"), ('base = "fp4"', "fp4"),
    ('layers = "auto"\nmax_action_error = 0.1\nschemes = ["int8", "fp8"]', "fp8"),
    ('[[precision.rule]]\nlayers = "*"\nscheme = "mxfp8"', "mxfp8")])
def test_a_board_refuses_what_its_gpu_has_not(tmp_path, body, scheme):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(tmp_path, body), load_target("orin-nx-16gb"))
    assert f'"{scheme}" is not supported' in caught.value.what and "orin-nx-16gb" in caught.value.where
    assert "sm_87" in caught.value.why and scheme in caught.value.why and "TensorRT refuses" in caught.value.why
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(tmp_path, body), load_target("host"))
    assert "ONNX Runtime" in caught.value.why and scheme in caught.value.why
    with pytest.raises(ConfigError):
        load_recipe(recipe(tmp_path, body))


@pytest.mark.parametrize("target", ["orin-nano-8gb", "host", None])
def test_bf16_is_no_scheme_of_a_bundle(tmp_path, target):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(tmp_path, 'layers = "bf16"'), target and load_target(target))
    assert "no weight is stored as bf16" in caught.value.why and caught.value.fix == 'use "fp16"'


def test_a_misspelt_scheme_is_still_a_misspelt_scheme(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(tmp_path, 'layers = "int88"'), load_target("orin-nano-8gb"))
    assert caught.value.why == 'did you mean "int8"?'


def test_build_and_plan_refuse_before_anything_slow(tmp_path, capsys):
    wrong = recipe(tmp_path, 'layers = "fp8"')
    for verb in ("build", "plan"):
        assert main([verb, "no.such.module:make", "--target", "orin-nano-8gb", "--recipe", wrong]) == 3
        assert "sm_87" in capsys.readouterr().err


def test_listing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["targets"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*BOARDS, "host-aarch64", "nuc", "raspberry-pi-5", "@maxn-super", "jetpack-7.2",
                                    "nothing measured on them"))
    assert max(map(len, text.splitlines())) <= 80
    assert main(["targets", "orin-nx-16gb@10w", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["power"]["sms"] == 4 and document["derived"]["gpu_tops_int8"] == pytest.approx(10.03, abs=0.01)
    assert document["software"]["tensorrt"] == "10.3"
