"""The rows of bundle/plan/stage_rows.py as tables for the terminal; they fit 80 columns."""

from __future__ import annotations

from rich.table import Table

from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.stage_rows import (
    change_rows,
    depends_text,
    gflop,
    megabytes,
    percent,
    short_names,
    stage_rows,
)


def stage_table(plan: Plan) -> Table:
    """Stage, depends on, GFLOP, weights MB, iterations; fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("depends on")
    for title in ("GFLOP", "share", "weights MB", "share", "iter."):
        table.add_column(title, justify="right", no_wrap=True)
    for r, stage in zip(stage_rows(plan), plan.stages, strict=True):
        table.add_row(r["stage"], depends_text(plan, r["depends"]), gflop(r["flops"]), percent(r["flops_share"]),
                      megabytes(r["weight_bytes"]), percent(r["weight_share"]), stage.iterations_text)
    return table


def change_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("a new", no_wrap=True)
    table.add_column("runs")
    table.add_column("GFLOP", justify="right", no_wrap=True)
    table.add_column("of all", justify="right", no_wrap=True)
    short = short_names(plan.source_names())
    for r in change_rows(plan):
        table.add_row(short[r["source"]], ", ".join(r["runs"]), gflop(r["flops"]), percent(r["flops_share"]))
    return table
