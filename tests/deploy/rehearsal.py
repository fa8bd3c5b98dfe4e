"""A board's first day on doubles of NVIDIA's libraries: what lies on the device, and sensors as a Jetson has them.
Nothing of it is a board, and its records say so."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.deploy import board as boards
from tests.deploy.stand_ins import executable
from tests.runtime_c.running import BUILD, make
from tests.runtime_c.tensorrt import Board
from vlart.bundle.directory import Bundle

MODE, NVPMODEL = 2, "MAXN_SUPER"  # as the double's device says
# {path below the root: content}: an Orin Nano's, idle
SENSORS = {
    "sys/class/devfreq/17000000.gpu/cur_freq": "1008000000", "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal", "sys/class/thermal/thermal_zone0/temp": "52500",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN", "sys/class/hwmon/hwmon1/in1_input": "5000",
    "sys/class/hwmon/hwmon1/curr1_input": "4200", "sys/class/hwmon/hwmon1/oc3_event_cnt": "7",
    "proc/meminfo": "MemTotal:        7790000 kB\nMemAvailable:    5000000 kB",
    "var/lib/nvpmodel/status": f"pmode:{MODE:04d} fmode:quiet",
}


def lay_out(folder: Path, bundle: Bundle, **conf: object) -> Board:
    """`folder`: what --tensorrt names on the device. Engines weigh what was planned."""
    make(f"BUILD={BUILD}", "all", str(BUILD / "libfake_tensorrt.so"))
    sizes = " ".join(f"{s.name}:{(s.build.engine_bytes_min + s.build.engine_bytes_max) // 2}"
                     for s in bundle.plan.stages if s.build)
    folder.mkdir(parents=True)
    board = Board(folder, sizes=sizes, **conf)
    for name in ("libvlart_tensorrt.so", "libvlart_tensorrt_builder.so"):
        shutil.copy(board.library, folder / name)
    for path, content in SENSORS.items():
        board.file(path, f"{content}\n")
    return board


def programs(folder: Path, system: Path) -> Path:
    """vlart-run reads the double's sensors; for --runtime."""
    folder.mkdir()
    for name in ("vlart-build", "libvlart.so"):
        shutil.copy(boards.RUNTIME / name, folder / name)
    shutil.copy(boards.RUNTIME / "vlart-run", folder / "run")
    executable(folder / "vlart-run", f"""\
#!/bin/sh
case " $* " in *" --profile "*) set -- "$@" --sensors {system} ;; esac
exec {folder}/run "$@"
""")
    return folder
