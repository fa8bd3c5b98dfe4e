"""What every plan is: the invariants that libvlart checks again when it opens the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlart.bundle.format.layout import MAX_RANK

if TYPE_CHECKING:
    from vlart.bundle.plan.plan import Plan


def check(plan: Plan) -> None:
    """Asserts all of them."""
    names = [v.name for v in plan.values]
    assert len(set(names)) == len(names), "value names are unique"
    assert all(len(v.type.dims) <= MAX_RANK for v in plan.values)
    sources = {s.value for s in plan.sources}
    deps: dict[int, frozenset[int]] = {v: frozenset({v}) for v in sources}
    deps |= {i: frozenset() for i, v in enumerate(plan.values) if v.weight is not None}
    deps |= {c.value: frozenset() for c in plan.carried}
    root_of = _check_delays(plan, names, sources)
    earlier: set[int] = set()  # values that depend on an observation before the newest
    for stage in plan.stages:
        own = frozenset(stage.depends)
        assert own <= sources, f"{stage.name} depends on a value that is no source"
        reads = [b.value for b in stage.inputs if b.mode != "carry"] + [c.initial for c in stage.carries]
        for value in reads:
            if value in root_of:
                earlier.add(value)
                deps[value] = deps.get(root_of[value], frozenset({-1}))
            assert value in deps, f"{stage.name} reads {names[value]} before it is written"
            assert deps[value] <= own, f"{stage.name} reads {names[value]}, which depends on more than it does"
        for binding in stage.outputs:
            assert binding.value not in deps | root_of, f"{names[binding.value]} is written twice"
            deps[binding.value] = own
        if earlier & set(reads):
            earlier |= {b.value for b in stage.outputs}
    histories = {h.source for h in plan.histories}
    for root in root_of.values():
        assert root in deps and deps[root] <= histories, f"{names[root]} depends on more than histories"
        assert root not in earlier, f"{names[root]} is delayed and depends on an earlier observation"

    _check_carried(plan, names, sources | root_of.keys())
    taken = [s for lane in plan.lanes for s in lane.sources]
    assert len(set(taken)) == len(taken) and set(taken) <= sources - histories, "sources of lanes"
    types = {plan.values[b.value].type for b in plan.backbones}
    assert not plan.backbones or (len(plan.backbones) > 1 and len(types) == 1 and not plan.lanes
                                  and plan.action is not None
                                  and plan.backbones[0].value == plan.action.value), "backbones"
    _check_buckets(plan, sources)
    running = {plan.lane_of(s) for s in plan.stages}
    assert not plan.lanes or running == set(range(len(plan.lanes) + 1)), "every lane runs a stage"


def _check_delays(plan: Plan, names: list[str], sources: set[int]) -> dict[int, int]:
    """{delayed value: the value at the beginning of its chain}"""
    assert all(h.source in sources and h.frames >= 2 for h in plan.histories)
    root_of: dict[int, int] = {}
    outputs = {d.output for d in plan.delays}
    for d in plan.delays:
        assert plan.values[d.input].type == plan.values[d.output].type, f"{names[d.output]} has another type"
        assert d.input in root_of or d.input not in outputs, f"{names[d.input]} is delayed later"
        taken = d.output in root_of or d.output in sources or plan.values[d.output].weight is not None
        assert not taken, f"{names[d.output]} is written twice"
        root_of[d.output] = root_of.get(d.input, d.input)
    return root_of


def _check_carried(plan: Plan, names: list[str], taken: set[int]) -> None:
    """taken: values that are given otherwise."""
    maker = {b.value: s for s in plan.stages for b in s.outputs}
    continuing = plan.depends_on_carried().keys()
    assert len({c.next for c in plan.carried}) == len({c.value for c in plan.carried}) == len(plan.carried)
    for c in plan.carried:
        value, following = plan.values[c.value], plan.values[c.next]
        assert value.type == following.type, f"{names[c.next]} has another type than {names[c.value]}"
        assert c.initial is None or plan.weights[c.initial].type == value.type, f"{names[c.value]} begins otherwise"
        assert c.value not in maker and c.value not in taken and value.weight is None, f"{names[c.value]} is written"
        assert c.next in maker and maker[c.next].name in continuing, f"{names[c.next]} is not made by every step"
    own = {s.name for s in plan.stages if plan.lane_of(s) == len(plan.lanes)}
    assert not plan.lanes or continuing <= own, "lanes carry nothing from step to step"


def _check_buckets(plan: Plan, sources: set[int]) -> None:
    if not plan.buckets:
        return
    lengths = [b.length for b in plan.buckets]
    assert len(lengths) == len(plan.backbones) and lengths == sorted(set(lengths)), "buckets"
    assert len({(b.mask, b.side) for b in plan.buckets}) == 1 and plan.buckets[0].mask in sources, "mask of buckets"
    assert plan.values[plan.buckets[0].mask].type.dims == (1, lengths[-1]), "the longest bucket"
