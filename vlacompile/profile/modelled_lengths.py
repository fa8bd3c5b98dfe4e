"""Models a bundle whose policy is compiled for several lengths of its text: what each costs on its target."""

from __future__ import annotations

from vlacompile.hardware.target import load_target
from vlacompile.profile.kernel_work import work_of
from vlacompile.profile.roofline import model
from vlart.bundle.directory import Bundle, one_backbone
from vlart.bundle.plan.stage_rows import text_rows
from vlart.errors import ConfigError


def modelled_lengths(bundle: Bundle) -> list[dict]:
    """text_rows(), each with the modelled latency of a replan with the same text and the first with a new one, in ms;
    None where the bundle's target has no rates. Empty for a bundle of one length."""
    rows = []
    for row in text_rows(bundle.plan):
        one, times = one_backbone(bundle, row["backbone"]), (None, None)
        try:
            found = model(one.plan, work_of(one), load_target(bundle.plan.target))
            times = found.same / 1e3, found.new / 1e3
        except ConfigError:  # a target of a file of its own, or without rates
            pass
        rows.append(row | {"same_ms": times[0], "new_ms": times[1]})
    return rows
