"""A double of jetson-stats' Python API (7.2.2: jtop/jtop.py, core/{gpu,cpu,memory,power,temperature}.py), over a
tree of a board's files: figures in jtop's units and names, changes that show some readings after they were asked
for."""

from __future__ import annotations

import re
from pathlib import Path


class JtopException(Exception):
    pass


class NVPModel:
    def __init__(self, board):
        self.board, self.models, self.name = board, ["15W", "25W", "MAXN_SUPER"], "25W"

    @property
    def id(self):
        return self.models.index(self.name)


class JetsonClocks:
    status = "inactive"

    def __init__(self):
        self.on = False

    def __bool__(self):
        return self.on


class Board:
    """What stands behind the service. log: what was asked for. needs_reboot: modes that nvpmodel does not take while
    it runs. turns: readings until a change shows."""

    def __init__(self, root: Path, active=True):
        self.root, self.active, self.log, self.needs_reboot, self.turns = root, active, [], set(), 2
        self.model, self.clocks, self.pending, self.stopped = NVPModel(self), JetsonClocks(), [], False
        self.closed = 0

    def module(self):
        """What `import jtop` gives."""
        board = self

        class Jtop(Client):
            def __init__(self, interval=1.0):
                super().__init__(board)

        return type("jtop", (), {"jtop": Jtop, "JtopException": JtopException})

    def number(self, path):
        return int((self.root / path).read_text())


class Client:
    def __init__(self, board):
        self.board = board

    def start(self):
        if not self.board.active:
            raise JtopException("The jtop.service is not active. Please run:\nsudo jtop --install-service")

    def close(self):
        self.board.closed += 1

    def ok(self, spin=False):
        if self.board.stopped:
            raise JtopException("Lost connection with jtop server")
        if not spin:
            for change in self.board.pending:
                change[0] -= 1
                if change[0] == 0:
                    change[1]()
        return True

    @property
    def nvpmodel(self):
        return self.board.model

    @nvpmodel.setter
    def nvpmodel(self, name):
        self.board.log.append(name)
        if name not in self.board.needs_reboot:
            self.board.pending.append([self.board.turns, lambda: setattr(self.board.model, "name", name)])

    @property
    def jetson_clocks(self):
        return self.board.clocks

    @jetson_clocks.setter
    def jetson_clocks(self, on):
        self.board.log.append(on)
        self.board.pending.append([self.board.turns, lambda: setattr(self.board.clocks, "on", on)])

    @property
    def gpu(self):
        node = "sys/class/devfreq/17000000.gpu/"
        return {"ga10b": {"type": "integrated", "freq": {"cur": self.board.number(node + "cur_freq") // 1000},
                          "status": {"load": self.board.number(node + "device/load") / 10.0}}}

    @property
    def memory(self):
        return {"EMC": {"cur": self.board.number("sys/kernel/debug/bpmp/debug/clk/emc/rate") // 1000}}

    @property
    def cpu(self):
        khz = self.board.number("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
        return {"total": {"user": 20.0, "nice": 0.0, "system": 5.0, "idle": 75.0},
                "cpu": [{"online": True, "freq": {"cur": khz}}, {"online": False}]}

    @property
    def temperature(self):
        found = {"nvme Composite": {"temp": 99.0, "online": True}}
        for zone in sorted(self.board.root.glob("sys/class/thermal/thermal_zone*")):
            name, text = (zone / "type").read_text().strip().split("-")[0], (zone / "temp").read_text().strip()
            known = re.fullmatch(r"\d+", text)
            found[name] = {"temp": int(text) / 1000.0 if known else -256, "online": bool(known)}
        return found

    @property
    def power(self):
        """VDD_IN is taken out of the rails and becomes the total."""
        rails = {}
        for label in sorted(self.board.root.glob("sys/class/hwmon/hwmon*/in[1-3]_label")):
            n, folder = label.name[2], label.parent
            volt, curr = (int((folder / f).read_text()) for f in (f"in{n}_input", f"curr{n}_input"))
            rails[label.read_text().strip()] = {"type": "INA3221", "volt": volt, "curr": curr, "online": True,
                                                "power": int(volt * (curr / 1000)), "avg": 0}
        if "VDD_IN" in rails:
            return {"tot": {**rails.pop("VDD_IN"), "name": "VDD_IN"}, "rail": rails}
        return {"tot": {"power": sum(r["power"] for r in rails.values()), "avg": 0}, "rail": rails}
