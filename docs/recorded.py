"""Blocks on recordings."""

from __future__ import annotations

from docs.figures import MISSING, duration_text, figures_of, table

FILE = "profiles/host/recorder.json"


def recorder() -> str:
    """Ticks with and without a recorder, in pairs."""
    figures = figures_of(FILE)
    if not figures:
        return MISSING
    rows = []
    for run, words in (("real_time", "1 kHz"), ("fast", "as fast as possible")):
        found = figures[run]
        for arm in ("without", "with"):
            ns = found[arm]["ns"]
            rows.append([words, arm, found[arm]["ticks"], *(f"{ns[q] / 1e3:.2f}" for q in ("0.5", "0.99", "0.999")),
                         f"{ns['1'] / 1e3:.0f}"])
    real, fast, where = figures["real_time"], figures["fast"], figures["machine"]
    per = real["compared"]
    return table(
        ["ticks", "recorder", "count", "median, µs", "p99, µs", "p99.9, µs", "max, µs"], rows,
        "From when a tick was due to when its action was there; as fast as possible: of each call. "
        f"{real['pairs']} pairs of blocks of {real['block_ticks']} ticks in random order; a new observation of "
        f"{real['observation_bytes']} bytes every {_every(real)} ticks; {where['cpu']}, {where['cores']} cores that "
        "other work shared" + (f", the control thread with priority {real['priority']}" if real["priority"] else "")
        + ". Blocks without a recorder are of a session that is not recorded, beside a recorder that has nothing to "
        "write.", "",
        f"At 1 kHz the medians of the blocks of a pair differ by {_interval(per['median'])}, their 99th percentiles by "
        f"{_interval(per['p99'])}. The control thread allocated {real['allocations']} times in "
        f"{real['with']['ticks'] + real['without']['ticks']} ticks.", "",
        f"At 1 kHz {real['lost_events']} of {real['events'] + real['lost_events']} events were lost. As fast as "
        f"possible, {fast['lost_events']} of {fast['events'] + fast['lost_events']} found no memory; the recording "
        f"itself tells of {fast['log_told_losses']}, in the part of it that was not overwritten, and there "
        f"{fast['log_gaps']} numbers are missing in its sequences.")


def _every(found: dict) -> int:
    return 33 if found["block_ticks"] else 0


def _interval(row: dict) -> str:
    return (f"{row['difference_us']:+.2f} µs (95 % of resampled medians between {row['low_us']:+.2f} and "
            f"{row['high_us']:+.2f}; without: {row['without_us']:.2f} µs)")


def cuts() -> str:
    """A recording that lost any part of itself."""
    figures = figures_of(FILE)
    if not figures:
        return MISSING
    found = figures["cuts"]
    return (f"{found['cuts']} cuts of a recording of {found['events']} events: {found['readable']} were read, every "
            f"event of them as it had been, and {found['replayed_equal']} replayed without a bit that differs "
            f"({found['compared']} chunks and actions compared, {duration_text(found['seconds'])}). Of the events "
            f"{100 * found['kept_median']:.0f} % were kept at the median, {100 * found['kept_least']:.0f} % at "
            "least.\n")
