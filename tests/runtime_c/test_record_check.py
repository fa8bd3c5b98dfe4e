"""What a reader checks of a record by the kinds of its fields: one damage per field of plan.bin, from the layout."""

from __future__ import annotations

import functools

import pytest
from sample_actions import samples
from sample_backbones import bucketed, paired
from sample_bundles import Bundle, Flow, Recall
from sample_carried import Adding
from sample_lanes import laned
from sample_loops import Ending
from sample_tokenizers import spoken
from vlart_ctypes import Failure, Policy

from vlart.bundle.format import layout
from vlart.bundle.format.record import Bits, Enum, Field, Flag, Index, Kind, Rank, Reserved, Span, String
from vlart.bundle.plan.binary import read_plan
from vlart.errors import BundleError

# {kind: (a number that no field of it may hold, what the reader says)}
WRONG: dict[type[Kind], tuple[int, str]] = {
    String: (1 << 20, "{name}: a string begins outside"), Index: (1 << 20, "{name} 1048576 does not exist"),
    Enum: (250, "{name} 250 is unknown"), Bits: (1 << 31, "{name} 2147483648 are unknown"),
    Flag: (2, "{name} is 2, neither 0 nor 1"), Rank: (9, "rank is larger than 8"),
    Span: (1 << 20, "{name}, 1048576 from"), Reserved: (1, '"{name}" is not zero'),
}
FIELDS = [(section, f) for section in layout.PLAN_SECTIONS if (record := layout.SECTIONS[layout.SECTION_ID[section]][1])
          for f in record.fields if isinstance(f.kind, tuple(WRONG)) and not getattr(f.kind, "later", False)]


@functools.cache
def bundles() -> tuple[Bundle, ...]:
    relays = samples()
    return (Flow(3).on_board().bundle, Ending(4).bundle, Recall().bundle, spoken(), laned(), paired(), bucketed(),
            Adding().bundle,
            *(relays[name].bundle for name in ("lookup", "guarded", "realtime", "limited_clip")))


@pytest.mark.parametrize("section, field", FIELDS, ids=lambda x: x.key if isinstance(x, Field) else x)
def test_a_field_that_breaks_its_kind_is_named(lib, tmp_path, section, field):
    """By libvlart; Python's reader refuses it too."""
    bundle = next(b for b in bundles() if b.plan_container().records.get(section))
    root = bundle.write(tmp_path)
    with Policy(lib, root):
        pass
    plan = bundle.plan_container()
    number, words = next(row for kind, row in WRONG.items() if isinstance(field.kind, kind))
    plan.records[section][0][f"{field.key}_count" if isinstance(field.kind, Span) else field.name] = number
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT" and failure.value.where == f"plan.bin, {section}[0]"
    assert words.format(name=field.key) in failure.value.why, failure.value
    with pytest.raises(BundleError):
        read_plan(root / "plan.bin")


def test_every_kind_is_checked_or_any_number_will_do():
    free = {"Number", "Float", "Checksum", "Dims", "Count"}  # what is said of them says a rule of their own
    kinds = {type(f.kind) for record in layout.RECORDS for f in record.fields}
    assert {k.__name__ for k in kinds if not issubclass(k, tuple(WRONG))} == free
