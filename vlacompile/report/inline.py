"""The report's figures one by one, for a notebook: `stages`, `time_line` and `precisions` draw themselves as the last
value of a cell.

Each is a picture with its own style sheet, which leaves the notebook's alone and follows light and dark.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jinja2 import Environment, PackageLoader

from vlacompile.profile.measure import Profile
from vlacompile.report import facts
from vlacompile.report.figures import Bar, Segment, bars
from vlart.bundle.directory import Bundle
from vlart.errors import ConfigError

KINDS = {"fp32": "static", "fp16": "observation", "int8": "task", "int4": "step"}  # colours of the style sheet


@dataclass(frozen=True)
class Drawing:
    """svg: the picture. caption: below it."""

    svg: str
    caption: str

    def html(self) -> str:
        """The picture as an image, and its caption."""
        picture = base64.b64encode(self.svg.encode()).decode()
        return (f'<figure style="margin:0"><img style="max-width:100%" alt="{escape(self.caption)}" '
                f'src="data:image/svg+xml;base64,{picture}"/><figcaption>{escape(self.caption)}</figcaption></figure>')

    _repr_html_ = html  # what a notebook asks for


def stages(bundle: Bundle) -> Drawing:
    """The graph of a bundle's stages: inputs on the left, actions on the right."""
    return _drawing(facts.stage_graph(bundle.plan), "A stage runs again only when one of its inputs changed; its "
                    "colour is that of its fastest input.")


def time_line(bundle: Bundle, profile: Profile) -> Drawing:
    """A replan with a new instruction, stage by stage. profile: of this bundle (vlacompile.profile.measure). Raises
    ConfigError where it has no times of stages."""
    times = facts.times_of(profile)
    if not times.covers(bundle.plan):
        raise ConfigError("the measurement has no times of stages", where="time_line",
                          why=f'it is of another bundle than "{bundle.plan.name}"', fix="measure(bundle)")
    rows = facts.timeline_rows(bundle.plan, times)
    return _drawing(bars(rows, "stages of a replan", "ms"), f"A replan with a new instruction on {times.where}; "
                    f"with the same one it takes {times.same / 1e3:.3g} ms.")


def precisions(bundle: Bundle) -> Drawing:
    """What the weights of each stage are stored as. Raises ConfigError for a bundle in which nothing was chosen."""
    rows = []
    for stage in bundle.plan.stages:
        sizes = {k: sum(p.bytes for p in stage.precisions if p.scheme == k) / 1e6 for k in KINDS}
        segments = tuple(Segment(size, KINDS[k], f"{stage.name}: {size:.3g} MB in {k}")
                         for k, size in sizes.items() if size)
        if segments:
            rows.append(Bar(stage.name, segments, ", ".join(_layers(stage.precisions))))
    if not rows:
        raise ConfigError("no precision was chosen in this bundle", where="precisions",
                          why=f'the recipe "{bundle.plan.recipe}" asks for none',
                          fix='build it with recipe="auto", or another with [precision]')
    return _drawing(bars(rows, "weights by precision", "MB"),
                    f'Weights by precision, as the recipe "{bundle.plan.recipe}" asked and the compiler chose.')


def _layers(chosen: Sequence) -> list[str]:
    counts = {k: sum(p.layers for p in chosen if p.scheme == k) for k in KINDS}
    return [f"{n} in {k}" for k, n in counts.items() if n]


def _drawing(svg: str, caption: str) -> Drawing:
    style = Environment(loader=PackageLoader("vlacompile.report", "."), autoescape=True, trim_blocks=True) \
        .get_template("figures.css").render()
    alone = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    body = alone.index(">") + 1
    return Drawing(f"{alone[:body]}<style>{style} svg {{ background: var(--page); }}</style>{alone[body:]}", caption)
