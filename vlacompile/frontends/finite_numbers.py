"""Lists of numbers in a checkpoint's JSON files, from which a policy's constants in fp32 are made."""

from __future__ import annotations

LARGEST = 3.4028234e38  # of fp32


def finite_numbers(values: object) -> tuple[float, ...] | None:
    """The numbers of a list, or None if it is none, is empty, or has something else than numbers finite in fp32."""
    if not isinstance(values, list) or not values or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= LARGEST for v in values):
        return None
    return tuple(float(v) for v in values)


def is_below(high: float, low: float) -> bool:
    """Whether the upper end of a range is below the lower one by more than the rounding of quantiles of a number that
    never changes."""
    return high < low - 1e-5 * max(1.0, abs(low))
