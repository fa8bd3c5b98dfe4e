from __future__ import annotations

import pytest
import torch

import vlacompile as vc
from vlacompile.phases.load_policy import load_policy
from vlacompile.zoo import catalogue
from vlart.errors import SourceError

NUMBERS = range(1, 30)


def test_every_entry_says_what_it_is():
    for entry in catalogue.entries():
        assert entry.system.number in NUMBERS and entry.system.title and entry.system.architecture, entry.name
        assert not entry.variant or entry.variant in entry.system.variants


def test_names_are_distinct_and_found():
    names = [e.name for e in catalogue.entries()]
    assert len(set(names)) == len(names)
    assert all(catalogue.find(name).name == name for name in names)
    assert catalogue.find("nanovla-s").name == "nanovla"


@pytest.mark.parametrize(("source", "said"), [
    ("zoo:nanovls", "nanovla"), ("zoo:nanovla-x", "nanovla-"), ("zoo:nanovla@tinny", '"tinny" is not a size'),
    ("zoo:", "the zoo has no")])
def test_what_does_not_exist_is_refused(source, said):
    with pytest.raises(SourceError) as error:
        load_policy(source)
    assert said in str(error.value)


def test_a_system_has_the_same_weights_every_time_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = load_policy("zoo:nanovla@tiny"), load_policy("zoo:nanovla@tiny")
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        a, b = (p.infer(**p.example_inputs)["action"] for p in (first, second))
    assert torch.equal(a, b)


def test_assumptions_of_a_reconstruction_reach_the_policy():
    policy = load_policy("zoo:nanovla@tiny")
    assert isinstance(policy, vc.Policy) and "reconstruction" in policy.origin["architecture"]
    assert policy.origin["weights"] == "random" and "assumption 1" in policy.origin
