"""What a board says of itself while it is measured: read by Python and by vlart-run from the same files, and said in
words.

The files are a tree of a Jetson's form in a folder; nothing here was read on a board.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest

from vlacompile.profile import jetson_stats
from vlacompile.profile import measure as measuring
from vlacompile.profile.jetson_sensors import Reading, course, read_sensors
from vlacompile.profile.measure import MOST_READINGS, measure, read_of

FILES = {"sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
         "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000",
         "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n", "sys/class/thermal/thermal_zone0/temp": "51250",
         "sys/class/thermal/thermal_zone1/type": "odd", "sys/class/thermal/thermal_zone1/temp": "nothing",
         "sys/class/hwmon/hwmon2/in1_label": "VDD_IN", "sys/class/hwmon/hwmon2/in1_input": "5000",
         "sys/class/hwmon/hwmon2/curr1_input": "1640",
         "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1344000",
         "sys/class/hwmon/hwmon4/oc1_event_cnt": "0", "sys/class/hwmon/hwmon4/oc3_event_cnt": "7",
         "sys/class/thermal/cooling_device0/type": "pwm-fan", "sys/class/thermal/cooling_device0/cur_state": "2",
         "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert",
         "sys/class/thermal/cooling_device1/cur_state": "1",
         "proc/meminfo": "MemTotal:        7800000 kB\nMemFree: 1 kB\nMemAvailable:    3800000 kB\n"}
READ = Reading(624.75, 2133.0, 1344.0, {"gpu": 51.25}, {"VDD_IN": 8.2},
               {"over-current 3": 7, "gpu-throttle-alert": 1}, 4096.0)


@pytest.fixture
def board(tmp_path):
    for name, text in FILES.items():
        (tmp_path / "board" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "board" / name).write_text(text)
    return tmp_path / "board"


def test_a_board_as_its_files_lie(board, tmp_path):
    assert read_sensors(board) == READ and read_sensors(tmp_path / "none") == Reading()


def test_vlart_run_reads_what_python_reads(board, late_fusion_bundle, tmp_path):
    """Before, after, and in between; on a machine without such files, nothing that a board says."""
    from tests.deploy.board import RUNTIME
    from tests.runtime_c.running import ort_path

    def profile(*more):
        subprocess.run([RUNTIME / "vlart-run", late_fusion_bundle.path, "--ort", ort_path(), "--threads", "1",
                        "--profile",
                        tmp_path / "p.json", "--repeat", "3", *more], check=True, capture_output=True, timeout=60)
        return read_of(tmp_path / "p.json", late_fusion_bundle)

    found = profile("--sensors", board)
    assert found.before == found.after == READ and found.during and all(r == READ for r in found.during)
    assert "GPU 625 MHz" in found.fared() and profile("--sensors", tmp_path / "none").during[0] == Reading()
    assert profile().fared() == ""


def test_how_a_board_fared():
    """Clocks and power are those of the readings in between; events of over-current are counted from the first."""
    hot = dataclasses.replace(READ, gpu_mhz=306.0, watts={"VDD_IN": 12.2}, celsius={"gpu": 97.0},
                              throttled={"over-current 3": 9}, memory_mb=4200.0)
    cool = dataclasses.replace(READ, throttled={"over-current 3": 7})
    assert course(cool, [cool, hot], cool) == (
        "GPU 306 to 625 MHz, memory clock 2133 MHz, CPU 1344 MHz, VDD_IN 10.2 W on average, 12.2 at most, at "
        "most 97 C, "
        "4200 MB in use, throttled: over-current 3, 2 times")
    assert course(cool, [cool], cool).endswith("not throttled"), "seven events are of earlier hours"
    assert course(cool, [], READ).endswith("throttled: gpu-throttle-alert in state 1")
    assert course(Reading(memory_mb=1.0), [Reading(cpu_mhz=3000.0)], Reading()) == ""


def test_readings_are_as_many_as_there_is_room_for(late_fusion_bundle, monkeypatch):
    """None in the warm-up; then the whole time is covered, however long it is."""
    numbers = iter(range(1000))
    monkeypatch.setattr(jetson_stats, "read_sensors", lambda root: Reading(gpu_mhz=float(next(numbers))))
    monkeypatch.setattr(measuring, "READING_EVERY_S", 0.0)
    found = measure(late_fusion_bundle, replans=150, warm_up=5)
    taken = [int(r.gpu_mhz) for r in found.during]
    assert len(taken) <= MOST_READINGS and taken == sorted(taken) and taken[0] == 1 and taken[-1] == 150
    assert found.before.gpu_mhz == 0 and found.after.gpu_mhz == 151
    assert json.loads(json.dumps(found.as_dict()))["during"][0]["gpu_mhz"] == 1
