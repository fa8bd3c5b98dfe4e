"""The report is one page that needs no network, says what the bundle's own data say, and refuses another bundle's
times."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from scipy import stats

from vlacompile.cli.main import main
from vlacompile.hardware.target import load_target
from vlacompile.profile.kernel_work import work_of
from vlacompile.profile.measure import Series, measure
from vlacompile.profile.power import EXTRAPOLATED_FACTOR
from vlacompile.profile.published import bands
from vlacompile.profile.roofline import model
from vlacompile.report.facts import Times, pace
from vlacompile.report.figures import (
    BROAD,
    NARROW,
    Arrow,
    Bar,
    Box,
    Point,
    Segment,
    at_both_widths,
    bars,
    graph,
    roofline,
    ticks,
)
from vlacompile.report.page import page as page_of
from vlacompile.report.posteriors import HEIGHT, MOST, WIDTH, routing_facts
from vlacompile.routing.decide import Place, decide_at
from vlacompile.routing.table import Backbone, Evidence, Prior, Route, RoutingTable, Rule, Space, table_text
from vlart.bundle.directory import GOLDEN_FILE
from vlart.verify.frames import Expected, read_frames
from vlart.verify.replay import replay

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Checked(HTMLParser):
    """Every tag is closed; attributes that could load something are collected."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Checked:
    parser = Checked()
    parser.feed(page)
    assert not parser.open
    return parser


@pytest.fixture(scope="module")
def page(late_fusion_bundle, tmp_path_factory) -> str:
    folder, bundle = tmp_path_factory.mktemp("report"), str(late_fusion_bundle.path)
    assert main(["profile", bundle, "--measure", "--replans", "20", "-o", str(folder / "p.json")]) == 0
    assert main(["report", bundle, "--profile", str(folder / "p.json"), "-o", str(folder / "r.html")]) == 0
    return (folder / "r.html").read_text(encoding="utf-8")


def test_it_needs_nothing_else(page):
    found = read(page)
    assert not found.loads and "url(" not in page.replace("url(#head)", "") and "@import" not in page
    assert not re.search(r"https?://", page) and "<script" not in page


def test_it_says_what_the_bundle_says(page, late_fusion_bundle):
    text = " ".join(" ".join(read(page).text).split())
    for stage in late_fusion_bundle.plan.stages:
        assert stage.name in text
    assert late_fusion_bundle.hash in text and "modelled, not measured on a board" in text
    assert "all within their limits" in text
    assert "replan, same instruction" in text and "Llama-3.1-8B, Super" in text and "prefers-color-scheme: dark" in page


def test_times_of_another_bundle_are_refused(flow_bundle, late_fusion_bundle, cli, tmp_path):
    assert cli("profile", flow_bundle.path, "--measure", "--replans", "5", "-o", tmp_path / "p.json")[0] == 0
    code, _out, err = cli("report", late_fusion_bundle.path, "--profile", tmp_path / "p.json", "-o",
                          tmp_path / "r.html")
    assert code == 3 and "another bundle" in err and not (tmp_path / "r.html").exists()


def test_values_that_differ_are_shown_as_such(late_fusion_bundle):
    """Golden frames of other numbers: the page says so."""
    frames = read_frames(late_fusion_bundle.path / GOLDEN_FILE)
    wrong = [dataclasses.replace(f, expects={n: Expected(e.array + 1, e.limit) for n, e in f.expects.items()})
             for f in frames]
    found = [page_of(late_fusion_bundle, (), (), (), (), replay(late_fusion_bundle.path, f, ("action",)))
             for f in (frames, wrong)]
    assert "all within their limits" in found[0] and "not within their limits" not in found[0]
    assert "not within their limits" in found[1] and 'class="n bad"' in found[1]


@pytest.mark.parametrize("refusal, faults, words", [
    (None, [], "passed"), ({"what": "the parser refuses Foo"}, [], "the parser refuses Foo"),
    (None, ["weights are 90 MB, 45 planned"], "weights are 90 MB, 45 planned")])
def test_a_check_is_shown_as_what_it_is(late_fusion_bundle, refusal, faults, words):
    good = refusal is None and not faults
    row = {"stage": "vision", "weight_bytes": 45e6, "activation_bytes": 1e7, "passed": good, "refusal": refusal,
           "faults": faults,
           "build": {"weight_bytes": 45e6, "activation_bytes": 2e7},
           "counts": [{"what": "fused attentions", "found": 3, "planned": 4}]}
    check = {"label": "accepted somewhere; not run on a board", "passed": good, "stages": [row]}
    text = " ".join(" ".join(read(page_of(late_fusion_bundle, (), (), (), (), None, check)).text).split())
    assert words in text and "not run on a board" in text and "3 of 4" in text and ("1 of 1 stages" in text) == good


@pytest.mark.parametrize("text, code", [("{}", 8), ("nothing", 8),
                                        ('{"label": "x", "stages": [{"stage": "a", "build": {"weight_bytes": 1}}]}',
                                         3)])
def test_a_check_of_something_else_is_refused(late_fusion_bundle, cli, tmp_path, text, code):
    (tmp_path / "c.json").write_text(text)
    found = cli("report", late_fusion_bundle.path, "--no-replay", "--check", tmp_path / "c.json", "-o",
                tmp_path / "r.html")
    assert found[0] == code and "fix:" in found[2]


@pytest.fixture(scope="module")
def table() -> RoutingTable:
    """Two instructions of one cluster: the light policy is as good in the first, worse in the second."""
    seen = lambda *pairs: tuple(Evidence(s, f, 10.0) for s, f in pairs)
    routes = (Route("stack the cubes", 0, seen((20, 0), (20, 0))),
              Route("<b>thread</b> the needle", 0, seen((4, 16), (18, 2))),
              Route("", 0, seen((0, 0), (0, 0))), Route("", None, seen((0, 0), (0, 0))))
    backbones = (Backbone("light", 1.0, 2.0, 30.0), Backbone("heavy", 9.0, 4.0, 30.0))
    return RoutingTable(backbones, routes, Prior(), Rule(0.05, 0.8), Space(0.5, ((1.0, 0.0),), (1.0, 1.0)),
                        sources=("log a",)).check("here")


def test_what_routing_believes_and_decides(late_fusion_bundle, table, tmp_path, cli):
    (tmp_path / "t.json").write_text(table_text(table))
    code, _out, err = cli("report", late_fusion_bundle.path, "--no-replay", "--routing", tmp_path / "t.json", "-o",
                          tmp_path / "r.html")
    assert code == 0, err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    text = " ".join(" ".join(read(page).text).split())
    facts = routing_facts(table)
    assert [r["takes"]
            for r in facts["rows"]] == [table.backbones[decide_at(table, Place(i, "text", 1.0)).backbone].name
                                       for i in range(4)] and facts["rows"][1]["takes"] == "heavy"
    for r in facts["rows"]:
        assert f"{r['probabilities'][0]:.3f}" in text and f"{r['means'][0]:.3f}" in text
    assert "P(light ≥ heavy \u2212 0.05)" in text and "at least 0.8" in text and "<b>thread</b> the needle" in text
    assert page.count('class="density') == 8 and "4 of 20" in text and "in no cluster" in text
    assert 'class="density' not in page_of(late_fusion_bundle, (), (), (), (), None)


def test_a_drawn_posterior_is_the_density(table):
    """Each curve's points are Beta's density at their x, on one scale for all pictures, cut off at its top."""
    for row, route in zip(routing_facts(table)["rows"], range(4), strict=True):
        for belief, points in zip(decide_at(table, Place(route, "text", 1.0)).beliefs,
                                  re.findall(r'points="([^"]+)"', row["figure"]), strict=True):
            drawn = [tuple(map(float, p.split(","))) for p in points.split()][1:-1]
            bottom = max(y for _, y in drawn)
            for x, y in drawn[::17]:
                want = min(stats.beta(belief.alpha, belief.beta).pdf((x + 0.0) / WIDTH), MOST) / MOST * (HEIGHT - 17)
                ends = [min(max((x + d) / WIDTH, 1e-9), 1 - 1e-9) for d in (-0.06, 0.06)]  # x is written with one digit
                near = [min(stats.beta(belief.alpha, belief.beta).pdf(e), MOST) / MOST * (HEIGHT - 17) for e in ends]
                assert min(*near, want) - 0.06 <= HEIGHT - 14 - y <= max(*near, want) + 0.06
            assert bottom <= HEIGHT - 14


def test_two_measurements_are_set_side_by_side(late_fusion_bundle):
    """Also where both are of one machine: each has its own times and pictures, and a difference says whether it may be
    chance."""
    first = measure(late_fusion_bundle, replans=40, warm_up=2)
    slower = dataclasses.replace(first, series={n: Series(tuple(2 * x for x in s.us)) for n, s in first.series.items()})
    text = " ".join(" ".join(read(page := page_of(late_fusion_bundle, (), (), (), (first, slower), None)).text).split())
    names = [f"{first.machine['cpu']}, 1 thread, measurement {i}" for i in (1, 2)]
    assert f"{names[1]} compared with {names[0]}" in text and "2.00" in text and "slower" in text
    figures = re.findall(r'aria-label="stages of a replan[^>]*>.*?</svg>', page)
    assert len(figures) == 4 and figures[0] != figures[2], "each at two widths"
    again = " ".join(read(page_of(late_fusion_bundle, (), (), (), (first, first), None)).text)
    assert "may be chance" in again and "slower" not in again


def test_what_is_modelled_says_how_far_it_may_be_off(page, late_fusion_bundle):
    """On the cards and in the table of boards: the value, divided by and times the band."""
    from vlacompile.profile.published import band, held_out

    text = " ".join(" ".join(read(page).text).split())
    m = model(late_fusion_bundle.plan, work_of(late_fusion_bundle), load_target("orin-nano-8gb"))
    low, high = m.same / band() / 1e3, m.same * band() / 1e3
    assert f"{m.same / 1e3:.2f} ({low:.2f} to {high:.2f})" in text
    assert f"modelled for {m.target.partition('+')[0]} ({low:.2f} to {high:.2f})" in text
    for row in held_out():
        assert row.row.name in text and f"modelled {row.modelled:.1f} ms, published {row.row.ms:g} ms" in page
        assert f"{100 * (row.ratio - 1):+.0f} %" in text and row.row.source in text


def test_every_modelled_figure_says_how_far_it_may_be_off(page, late_fusion_bundle):
    """Bars too: each has a whisker from the least to the most; and what would be otherwise is there."""
    text, factors = " ".join(" ".join(read(page).text).split()), bands()
    m = model(late_fusion_bundle.plan, work_of(late_fusion_bundle), load_target("orin-nano-8gb"))
    mj, mb = 1e3 * m.joules, m.memory / 1e6
    assert f"{mj:.1f} ({mj / factors.joules:.1f} to {mj * factors.joules:.1f})" in text
    assert f"{mb:.0f} ({mb / factors.memory:.0f} to {mb * factors.memory:.0f})" in text
    assert page.count('class="band"') == 2 * 3 * len(late_fusion_bundle.plan.stages), "three boards, at two widths"
    for words in ("all int8", "mode 7w", "1 camera", "3 cameras", "h = 5 of 10 actions"):
        assert f'<td class="name">{words}</td>' in page
    assert f"and of {EXTRAPOLATED_FACTOR:.2f} elsewhere" in text and "kernels per" in text
    for s in m.stages:
        assert f'<td>{s.stage}</td><td class="n">{s.iterations}</td><td class="n">{s.operations / 1e9:.4g}</td>' in page


def test_a_figure_fits_a_telephone():
    """The same bars in 400 pixels, nothing wider than the picture; the style sheet shows one of the two."""
    rows = [Bar("a stage of a long name", (Segment(3.0, "task", "t"),), "3 ms", band=(2.0, 9.0)), Bar("b", (), "0 ms")]
    both = at_both_widths(lambda width: bars(rows, "label", "ms", width))
    read(both)
    for width in (BROAD, NARROW):
        assert f'width="{width}"' in both
    narrow = both[both.index('class="narrow"'):]
    ends = [float(x)
            for x in re.findall(r' x[12]?="([0-9.]+)"', narrow)] + [float(x) for x in re.findall(r"H([0-9.]+)", narrow)]
    assert max(ends) <= NARROW


@pytest.mark.parametrize("hz, words", [(20.0, "they last 150 ms, and the next replan is 2 % of that"), (0.0, "")])
def test_the_pace_of_a_task(late_fusion_bundle, hz, words):
    plan = late_fusion_bundle.plan
    plan = dataclasses.replace(plan, sources=tuple(dataclasses.replace(s, clock_hz=hz) for s in plan.sources),
                               action=dataclasses.replace(plan.action, execute_steps=3))
    found = pace(plan, Times("here", {}, 3000.0, 5000.0, True))
    assert words in found and bool(words) == bool(found)


def test_it_prints_light_and_whole(page):
    """The browser's part was looked at by eye; these rules are what it rests on."""
    rules = page[page.index("@media print"):page.index("</style>")]
    assert page.index("prefers-color-scheme: dark") < page.index("@media print") and "--page: #fff" in rules
    for words in ("overflow: visible", "break-inside: avoid", "table-header-group", "content-visibility: visible",
                  ".narrow { display: none; }"):
        assert words in rules
    assert page.count("<thead>") >= 6


def test_a_roofline_names_its_stages_once():
    points = [Point(10, 50, "a: 1 ms", "task"), Point(10.1, 50, "b: 1 ms", "task"), Point(99, 5, "far: 1 ms", "tick")]
    picture = roofline([("fp32", 100.0, 10.0, "fp32")], points)
    assert ">a, b</text>" in picture and picture.count(">far</text>") == 1
    read(picture)


def test_what_a_policy_is_called_cannot_break_the_page():
    evil = '<script>alert("x")</script>&'
    picture = graph([Box("a", (evil,), "task"), Box("b", ("b",), "tick")], [Arrow("a", "b", evil)])
    picture += bars([Bar(evil, (Segment(1.0, "task", evil),), evil)], evil, evil)
    assert "<script" not in picture
    read(picture)


@pytest.mark.parametrize("most", [1e-6, 0.37, 1.0, 7.0, 99.0, 12345.0])
def test_ticks_are_round_and_cover(most):
    found = ticks(most)
    assert found[0] == 0 and 2 <= len(found) <= 8 and found[-1] <= most * 1.0001
    assert found[-1] >= most / 2
