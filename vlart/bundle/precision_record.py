"""What a bundle's manifest says of its precision: what was asked and done, what it costs, and by which observations.

Owns how that reads, and who is refused a bundle of which nobody has measured what it costs. Must not know how it came
about (compiler/precision/assign/outcome.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from vlart.bundle.directory import Bundle
from vlart.errors import CalibrationError

NOT_MEASURED = "not measured: no real observation was seen"


def precision_of(provenance: Mapping) -> Mapping | None:
    """None: everything is as it was written. Bundles of before this was recorded have it not either."""
    return provenance.get("precision")


def is_uncalibrated(bundle: Bundle) -> bool:
    """Whether activations are rounded to ranges that no real observation has shown."""
    found = precision_of(bundle.manifest["provenance"])
    return found is not None and found["uncalibrated"]


def require_calibrated(bundle: Bundle, told: bool) -> None:
    """told: that it is not. Raises CalibrationError."""
    if told or not is_uncalibrated(bundle):
        return
    found = precision_of(bundle.manifest["provenance"])
    assert found is not None
    layers = found["static_int8_layers"]
    raise CalibrationError(
        f'what int8 costs "{bundle.plan.name}" in actions is {NOT_MEASURED}', where=str(bundle.path),
        why=f"the ranges of what {layers} layer{'s read' if layers > 1 else ' reads'} come of generated "
            f"observations, and "
            "clip what real ones bring beyond them",
        fix="build it with Policy(calibration=...) of recorded observations, or say --uncalibrated")


def carried_lines(found: Mapping) -> list[str]:
    """What was asked, and how much of it was done."""
    return [r["line"] for r in found["carried_out"]]


def rotation_lines(found: Mapping) -> list[str]:
    """Per stage of which something could be rotated: what was, and what it was weighed against."""
    lines = []
    for r in found.get("rotations", ()):  # bundles of before this was recorded have none
        if not r["groups"]:
            lines.append(f"{r['stage']}: nothing is rotated{_ways(r)}")
            continue
        linears, products = (sum(g[k] for g in r["groups"]) for k in ("linears", "products"))
        by = ", ".join(dict.fromkeys(g["matrix"] for g in r["groups"]))
        lines.append(f"{r['stage']}: what {linears} linears read is rotated ({by}"
                     + (f", {products} products at run time" if products else "")
                     + (", channels rescaled besides)" if r["smoothed"] else ")") + _ways(r))
    return lines


def _ways(r: Mapping) -> str:
    """What the stage in that precision costs, each way."""
    if not r["errors"]:
        return ""
    return f"; action error with the stage in {r['scheme']}: " + ", ".join(
        f"{r['errors'][way]:.3g} {way}" for way in ("plain", "smoothed", "rotated", "both") if way in r["errors"])


def error_lines(found: Mapping) -> list[str]:
    """What it costs in actions, on this target and on others."""
    seen = "calibration observations" if found["recorded_observations"] else "generated observations"
    held = "" if found["held_out_error"] is None else f", {found['held_out_error']:.4g} on others"
    lines = [f"action error {found['action_error']:.4g} on {seen}{held}" if found["action_error"] is not None
             else f"action error {NOT_MEASURED}"]
    if found.get("jerk") is not None:  # bundles of before this was recorded have it not
        held = "" if found["held_out_jerk"] is None else f", {found['held_out_jerk']:.4g} on others"
        limit = "" if found["max_jerk"] is None else f", {found['max_jerk']:g} allowed"
        lines.append(f"jerk within a chunk: {found['jerk']:.4g} times fp32's{held}{limit}")
    if found.get("choices") is not None:
        apart = found.get("held_out_choices")
        others = "" if apart is None else f", {apart['number']} of {apart['of']} on others"
        lines.append(f"choices between scores that fall otherwise: {found['choices']['number']} of "
                     f"{found['choices']['of']}{others}")
    for dialect, error in found["simulated"].items():
        words = f"action error {error:.4g}" if error is not None else f"action error {NOT_MEASURED}"
        lines.append(f"rendered for {dialect} and simulated: {words}")
    return lines
