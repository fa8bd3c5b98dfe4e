"""The report's figures in a notebook: pictures with a style sheet of their own, of the bundle that was given."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from vlacompile.profile.measure import measure
from vlacompile.report import inline
from vlart.errors import ConfigError


def texts(drawing: inline.Drawing) -> set[str]:
    return {e.text for e in ET.fromstring(drawing.svg).iter() if e.tag.endswith("text")}


def test_drawings_stand_alone(late_fusion_bundle):
    drawing = inline.stages(late_fusion_bundle)
    assert {s.name for s in late_fusion_bundle.plan.stages} <= texts(drawing)
    root = ET.fromstring(drawing.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "prefers-color-scheme" in root[0].text
    used = {c for e in root.iter() for c in e.get("class", "").split()} - {"natural", "fitted", "box", "arrow"}
    assert all(f".{c}" in root[0].text for c in used), used
    html = drawing.html()
    assert html.startswith("<figure") and "<style" not in html  # the notebook's own styles stay


def test_the_time_line_has_every_stage(late_fusion_bundle):
    profile = measure(late_fusion_bundle, replans=10, warm_up=2)
    assert {s.name for s in late_fusion_bundle.plan.stages} <= texts(inline.time_line(late_fusion_bundle, profile))
    without = replace(profile, series={n: s for n, s in profile.series.items() if not n.startswith("stage ")})
    with pytest.raises(ConfigError, match="no times of stages"):
        inline.time_line(late_fusion_bundle, without)


def test_a_bundle_without_chosen_precisions_says_so(late_fusion_bundle):
    with pytest.raises(ConfigError) as refused:
        inline.precisions(late_fusion_bundle)
    assert "auto" in refused.value.fix
