"""A board's sensors through jtop and through sysfs say the same; its mode is set back whatever happens. Both run on a
double of jetson-stats over a tree of files; nothing here was read on a board."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from tests.profile.jtop_double import Board
from tests.profile.test_jetson_sensors import FILES
from vlacompile.profile.jetson_sensors import Reading, course, read_sensors
from vlacompile.profile.jetson_stats import open_sensors
from vlacompile.profile.measure import measure, read_profile, write_profile
from vlart.errors import ConfigError

MORE = {"sys/class/devfreq/17000000.gpu/device/load": "873", "var/lib/nvpmodel/status": "pmode:0001 fmode:fanNull\n",
        "sys/class/hwmon/hwmon2/in2_label": "VDD_CPU_GPU_CV", "sys/class/hwmon/hwmon2/in2_input": "4999",
        "sys/class/hwmon/hwmon2/curr2_input": "333"}
ONLY_JTOP = {"cpu_load": None, "power_mode_name": None, "jetson_clocks": None}


@pytest.fixture
def board(tmp_path, monkeypatch):
    for name, text in (FILES | MORE).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = Board(tmp_path)
    monkeypatch.setitem(sys.modules, "jtop", found.module())
    return found


def state(board):
    return board.model.name, bool(board.clocks)


def test_both_ways_say_the_same(board):
    """Rails to the microwatt, though jtop's own power is truncated and its total is taken out of the rails."""
    with open_sensors(board.root) as sensors:
        by_jtop = sensors()
    assert sensors.source == "jtop" and board.closed == 1
    assert dataclasses.replace(by_jtop, **ONLY_JTOP) == read_sensors(board.root)
    assert by_jtop.watts == {"VDD_IN": 8.2, "VDD_CPU_GPU_CV": 4999 * 333 / 1e6} and by_jtop.gpu_load == 87.3
    assert by_jtop.power_mode == 1 and by_jtop.throttled == {"over-current 3": 7, "gpu-throttle-alert": 1}
    assert (by_jtop.cpu_load, by_jtop.power_mode_name, by_jtop.jetson_clocks) == (25.0, "25W", False)
    assert "GPU load 87 %, power mode 25W" in course(by_jtop, [by_jtop], by_jtop)


@pytest.mark.parametrize("file, text", [("sys/class/hwmon/hwmon2/curr1_input", "1650"),
                                        ("sys/class/thermal/thermal_zone0/temp", "60000"),
                                        ("sys/class/devfreq/17000000.gpu/cur_freq", "306000000")])
def test_the_comparison_sees_a_difference(board, file, text):
    """A file that changes between the two readings is a difference: what the equality above would show."""
    with open_sensors(board.root) as sensors:
        by_jtop = sensors()
    (board.root / file).write_text(text)
    assert dataclasses.replace(by_jtop, **ONLY_JTOP) != read_sensors(board.root)


def test_a_sum_of_jtops_own_is_no_rail(board):
    (board.root / "sys/class/hwmon/hwmon2/in1_label").write_text("VDD_GPU_SOC")
    with open_sensors(board.root) as sensors:
        assert sensors().watts == read_sensors(board.root).watts and "VDD_GPU_SOC" in sensors().watts


def test_without_a_service_or_the_package_sysfs_is_read(board, monkeypatch):
    board.active = False
    with open_sensors(board.root) as sensors:
        assert sensors() == read_sensors(board.root) and sensors.source == "sysfs" and "not active" in sensors.why
        with pytest.raises(ConfigError, match="not active"), sensors.power("15W"):
            pass
        with sensors.power():
            pass
    monkeypatch.setitem(sys.modules, "jtop", None)
    with open_sensors(board.root) as sensors:
        assert sensors.source == "sysfs" and "not installed" in sensors.why


def test_a_service_that_stops_leaves_the_rest_to_sysfs(board):
    with open_sensors(board.root) as sensors:
        assert sensors().cpu_load == 25.0
        board.stopped = True
        assert sensors() == read_sensors(board.root) != Reading()
    assert sensors.source == "sysfs" and "Lost connection" in sensors.why


def test_mode_and_clocks_are_set_and_set_back(board):
    with open_sensors(board.root) as sensors:
        with sensors.power("maxn-super", jetson_clocks=True):
            assert state(board) == ("MAXN_SUPER", True) and sensors().power_mode_name == "MAXN_SUPER"
        assert state(board) == ("25W", False)
        assert board.log == ["MAXN_SUPER", True, False, "25W"], "clocks are those of the mode, so they go first"
        with sensors.power("25W", jetson_clocks=False):
            assert len(board.log) == 4, "what is so already is not asked for"


def test_they_are_set_back_after_an_error(board):
    with open_sensors(board.root) as sensors:
        with pytest.raises(ZeroDivisionError), sensors.power("15W", jetson_clocks=True):
            raise ZeroDivisionError
        assert state(board) == ("25W", False)
        board.needs_reboot = {"MAXN_SUPER"}
        with pytest.raises(ConfigError, match=r"still in 25W; some changes need a reboot"), sensors.power("MAXN_SUPER"):
            pass
        with pytest.raises(ConfigError, match="15W, 25W, MAXN_SUPER"), sensors.power("7W", jetson_clocks=True):
            pass
        assert state(board) == ("25W", False)
        board.needs_reboot = {"25W"}
        with pytest.raises(ZeroDivisionError) as failure, sensors.power("15W"):
            raise ZeroDivisionError
        assert "not as it was before" in failure.value.__notes__[0]


def test_a_measurement_in_a_mode(board, late_fusion_bundle, tmp_path):
    with pytest.raises(ConfigError, match="no power mode"):
        measure(late_fusion_bundle, replans=1, warm_up=0, power_mode="1W")
    found = measure(late_fusion_bundle, replans=2, warm_up=0, power_mode="15W", jetson_clocks=True)
    assert found.sensors == "jtop" and found.before.power_mode_name == "15W" and found.after.jetson_clocks
    assert state(board) == ("25W", False)
    write_profile(found, tmp_path / "p.json")
    read = read_profile(tmp_path / "p.json")
    assert (read.sensors, read.before, read.during) == (found.sensors, found.before, found.during)
