"""Power model of Jetson Orin modules while their GPU computes, from the clocks of a power mode. Nothing is measured.

W = idle + load; load = LOAD * SMs * MHz * voltage(MHz)^2; idle = FLOOR + IDLE_PER_GBPS * bandwidth of the memory's
clock, with clocks as under load. All Orin modules have the same chip. W are those of the module with its memory (the
rail VDD_IN of Nano and NX), without the carrier board.

The constants are fitted by `python -m benchmarks.board_model` to profiles/published, by its rule: LOAD and the idle of
one board to policies on an Orin Nano 8 GB in MAXN_SUPER, the voltages to a stress test of an AGX Orin in four modes,
FLOOR to a Nano with the lowest clocks. Powers in other modes and on other modules are extrapolated.
"""

from __future__ import annotations

from vlacompile.hardware.board import Mode
from vlacompile.hardware.target import Target

COMPUTE_CAPABILITY = 87  # of the Orin modules
LOAD_MW, FLAT_MHZ, VOLTS_PER_MHZ = 1.3244, 612.0, 5.1454e-4
FLOOR_W, IDLE_W_PER_GBPS = 2.18, 0.05172
FITTED_TO = ("orin-nano-8gb", "maxn-super")  # board and mode of the policies
# Measured over modelled power, as a factor either way: of the policies, each left out of the fit; of all rows in other
# modes and on other boards.
FITTED_FACTOR, EXTRAPOLATED_FACTOR = 1.066, 1.31


def voltage(mhz: float) -> float:
    """Of the GPU at a clock, relative to the lowest one: flat, then linear."""
    return 1.0 + VOLTS_PER_MHZ * max(0.0, mhz - FLAT_MHZ)


def clock_work(mode: Mode) -> float:
    """SMs x MHz x voltage^2 of a mode: what the load is proportional to."""
    return mode.sms * mode.busy_mhz * voltage(mode.busy_mhz) ** 2


def is_modelled(target: Target) -> bool:
    return target.board is not None and target.board.gpu.compute_capability == COMPUTE_CAPABILITY


def idle_watts(target: Target) -> float | None:
    """With the mode's clocks and nothing running; None: not known."""
    if not is_modelled(target):
        return None
    assert target.board is not None and target.power is not None
    return FLOOR_W + IDLE_W_PER_GBPS * target.power.dram_gbps(target.board.memory)


def watts(target: Target) -> float | None:
    """While the GPU is busy; None: not known."""
    idle = idle_watts(target)
    if idle is None:
        return None
    assert target.power is not None
    return idle + LOAD_MW / 1e3 * clock_work(target.power)


def is_extrapolated(target: Target) -> bool:
    """Whether no policy's power was published for the board in its mode."""
    return (target.name.partition("@")[0], target.power.name if target.power else "") != FITTED_TO


def power_factor(target: Target) -> float:
    """Error of the modelled power, either way."""
    return EXTRAPOLATED_FACTOR if is_extrapolated(target) else FITTED_FACTOR
