"""The lines of plan.txt, in their order. What stands on a line is the text of its record, unless given here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lines:
    """One line for each record of a section.

    lead: before the record's text. of: which records: "" every one; "self" the one that the line above is of; a span of
    that one's record; or the own field that names that one. when: only with this field, or span, of the record.
    """

    section: str
    lead: str = ""
    text: str = ""
    of: str = ""
    when: str = ""
    lines: tuple[Lines, ...] = ()


PLAN_LINES = (
    Lines("policy", text="plan {name} format {format} target {target} recipe {recipe}"),
    Lines("policy", text="arena {arena_bytes}"),
    Lines("board"),
    Lines("concurrency"),
    Lines("files"),
    Lines("weights"),
    Lines("values"),
    Lines("sources"),
    Lines("histories"),
    Lines("delays"),
    Lines("carried"),
    Lines("texts"),
    Lines("instructions"),
    Lines("lanes"),
    Lines("guards"),
    Lines("token_ranges"),
    Lines("chunks"),
    Lines("buckets"),
    Lines("stages", lines=(
        Lines("stages", text="  depends{*dep}", of="self"),
        Lines("bindings", "  in ", of="input"),
        Lines("bindings", "  out ", of="output"),
        Lines("initializers", "  init ", of="initializer"),
        Lines("carries", "  ", of="carry"),
        Lines("samplings", "  ", of="stage"),
        Lines("loop_ends", "  ", of="stage"),
        Lines("precisions", "  ", of="stage"),
        Lines("builds", "  ", of="stage"),
    )),
    Lines("policy", text="action {action_value} chunk={chunk_steps} execute={execute_steps} dim={action_dim} "
                         "deadline_us={deadline_us}", when="action_value", lines=(
        Lines("policy", text="  low{*low}", of="self", when="low"),
        Lines("policy", text="  high{*high}", of="self", when="high"),
        Lines("decodes", "  decode "),
        Lines("consumption", "  consume "),
        Lines("rate_limits", "  "),
    )),
)
