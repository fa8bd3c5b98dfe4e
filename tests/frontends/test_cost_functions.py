"""Texts of the language mean what NumPy makes of them, for every member of a batch; all others are refused with their
line, before anything of them is computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import vlacompile as vc
from vlacompile.frontends.cost_functions import read
from vlart.errors import SourceError

POINTS, BATCH = 4, 3
NUMBER = st.one_of(st.integers(-3, 3), st.floats(-2, 2).map(lambda x: round(x, 2))).map(lambda x: f"({x})")


def numbers(inner):
    scalar, vector, matrix = inner
    index = st.integers(-3, 2)
    return st.one_of(
        st.builds("({} {} {})".format, scalar, st.sampled_from("+-*/"), scalar),
        st.builds("({} ** {})".format, scalar, st.sampled_from(["2", "3", "0.5", "(-1)"])),
        st.builds("(-{})".format, scalar),
        st.builds("np.{}({})".format, st.sampled_from(["sqrt", "abs", "arccos", "sin", "cos", "square"]), scalar),
        st.builds("np.{}({}, {})".format, st.sampled_from(["minimum", "maximum", "arctan2"]), scalar, scalar),
        st.builds("{}({}, {}, {})".format, st.sampled_from(["max", "min"]), scalar, NUMBER, scalar),
        st.builds("np.clip({}, -1, {})".format, scalar, NUMBER),
        st.builds("np.{}({})".format, st.sampled_from(["linalg.norm", "sum", "mean", "max", "min"]),
                  st.one_of(vector, matrix)),
        st.builds("np.dot({}, {})".format, vector, vector), st.builds("({} @ {})".format, vector, vector),
        st.builds("{}[{}]".format, vector, index), st.builds("{}[{}, {}]".format, matrix, index, index),
        st.builds("({} if {} < {} else {})".format, scalar, scalar, scalar, scalar),
        st.builds("np.where(({0} < pose[1]) & ~(pose[2] >= {1}), {0}, {1})".format, scalar, scalar),
        st.builds("sum([{}[i] * i for i in range(3)])".format, vector),
        st.builds("np.mean({} > {})".format, vector, scalar),
        st.builds("sum({})".format, vector), st.builds("len({})".format, matrix))


def vectors(inner):
    scalar, vector, matrix = inner
    return st.one_of(
        st.builds("({} {} {})".format, vector, st.sampled_from("+-*/"), st.one_of(vector, scalar)),
        st.builds("np.array([{}, {}, {}])".format, scalar, scalar, scalar),
        st.builds("np.cross({}, {})".format, vector, vector),
        st.builds("np.{}({}, axis=0)".format, st.sampled_from(["sum", "mean", "max", "min", "linalg.norm"]), matrix),
        st.builds("np.dot({}[:3, :], {})".format, matrix, vector),
        st.builds("{}[{}]".format, matrix, st.integers(-POINTS, POINTS - 1)), st.builds("{}[::-1]".format, vector),
        st.builds("np.abs({})".format, vector), st.builds("np.clip({}, {}, 1.5)".format, vector, scalar))


def matrices(inner):
    _, vector, matrix = inner
    return st.one_of(
        st.builds("({} - {})".format, matrix, vector), st.builds("{}[[2, 0, 1, -1]]".format, matrix),
        st.builds("({} * {}[:, None, 0])".format, matrix, matrix),
        st.builds("np.array([{0}, {1}, {0}, {0}])".format, vector, vector))


def levels(depth: int):
    found = (st.one_of(NUMBER, st.sampled_from(["pose[0]", "points[1, 2]", "points[-1][0]", "np.pi"])),
             st.sampled_from(["pose", "points[0]", "points[2]"]), st.just("points"))
    for _ in range(depth):
        made = numbers(found), vectors(found), matrices(found)
        found = tuple(st.one_of(new, old) for new, old in zip(made, found, strict=True))
    return found


def written(text: str) -> dict:
    """The functions of a text, as Python itself has them: the oracle."""
    names: dict = {"np": np}
    exec(text, names)
    return names


def same(text: str, seed: int = 0) -> bool:
    draw = np.random.default_rng(seed)
    poses, points = draw.normal(size=(BATCH, 3)), draw.normal(size=(POINTS, 3))
    poses[0, 1] = 0.0
    cost = read(text)["cost"]
    got = cost(torch.tensor(poses), torch.tensor(points)[None])
    with np.errstate(all="ignore"):
        want = [written(text)["cost"](pose, points) for pose in poses]
    return got.shape == (BATCH,) and bool(np.allclose(got, np.array(want, dtype=np.float64), rtol=1e-9, atol=1e-9,
                                                      equal_nan=True))


@settings(max_examples=60, deadline=None)
@given(expression=levels(3)[0], seed=st.integers(0, 5))
def test_an_expression_means_what_numpy_makes_of_it(expression, seed):
    text = f"def cost(pose, points):\n    return {expression}\n"
    try:
        assert same(text, seed)
    except ZeroDivisionError:
        assume(False)  # Python's own numbers, for which NumPy is not asked: the text has no value there
    except SourceError as refusal:
        # Python itself cannot compute a constant of it, or the cost of arithmetic on two conditions
        assert refusal.what in ("a constant that cannot be computed", "a root of a negative number",
                                "an expression that is too deep", "a negative power of integers")


LINES = '''
def cost(end_effector: np.ndarray, keypoints) -> float:
    """The spout stays above the cup, and the pot upright."""
    spout, handle = keypoints[3], keypoints[2]
    x, y, z = spout - handle
    axis = (spout - handle) / np.linalg.norm(spout - handle)
    angle = np.arccos(np.clip(np.dot(axis, np.array([0, 0, 1])), -1.0, 1.0))
    total = 0
    total += max(0, angle - np.pi / 6)
    total *= tilt(axis, 2 ** 3)
    near = np.linalg.norm(keypoints - end_effector, axis=1)
    total -= min(near) + sum(near[i] for i in [0, 2]) + abs(x) + float(y > z)
    return total if 0 < near[0] < 9 and not near[1] > 5 else z


def tilt(axis, weight):
    return weight * np.max(np.abs(axis[:2]))
'''


def test_a_text_with_assignments_and_functions_means_what_numpy_makes_of_it():
    assert all(same(LINES, seed) for seed in range(5))
    assert read(LINES)["cost"].parameters == ("end_effector", "keypoints")


def test_pythons_max_and_numpys_differ_where_nan_is():
    for text in ("max(0, np.sqrt(-1 - pose[0] ** 2))", "np.maximum(0, np.sqrt(-1 - pose[0] ** 2))",
                 "max(np.sqrt(-1 - pose[0] ** 2), 0)"):
        assert same(f"def cost(pose, points): return {text}")


def test_another_text_has_another_value():
    """The comparison of these tests can fail."""
    pose, points = torch.ones(1, 3), torch.zeros(1, POINTS, 3)
    costs = [read(f"def cost(pose, points): return np.{f}(pose)")["cost"](pose, points) for f in ("sum", "mean")]
    assert costs[0] == 3 and costs[1] == 1


def test_gradients_pass_and_a_policy_computes_costs():
    cost = read("def cost(pose, points):\n    return np.linalg.norm(pose - points[1])")["cost"]

    def observe(pose, points):
        return {"action": torch.func.grad(lambda p: cost(p, points[None]).sum())(pose)[None]}

    inputs = {"pose": torch.randn(2, 3), "points": torch.randn(POINTS, 3)}
    policy = vc.Policy("costs", observe, {n: vc.Source("observation") for n in inputs}, inputs)
    away = inputs["pose"] - inputs["points"][1]
    torch.testing.assert_close(policy.infer(**inputs)["action"][0], away / away.norm(dim=1, keepdim=True))


REFUSED = {  # what stands in the second line: what is refused
    "return __import__('os').system('true')": "not a function of the language",
    "return open": '"open" is not known',
    "import os": "an import in a cost function",
    "from numpy import dot": "an import in a cost function",
    "for p in points: x = p": "a loop in a cost function",
    "while True: x = 1": "a loop in a cost function",
    "return sum([p[0] for p in points])": "a loop over data",
    "return sum([x for x in range(3) if x])": "more than one plain loop",
    "return cost(pose, points)": "cost calls itself",
    "return pose.sum()": '"pose.sum" is not a function',
    "return points.T": '"points.T" is not known',
    "return np.load('x')": '"np.load" is not a function',
    "return np.linalg.inv(points)": '"np.linalg.inv" is not a function',
    "return np.__class__": '"np.__class__" is not known',
    "return (lambda: 1)()": "is not a function of the language",
    "return [lambda: 1][0]": "a lambda in a cost function",
    "return f'{pose}'": "a formatted text in a cost function",
    "return 'text'": "str in a cost function",
    "return 1j": "complex in a cost function",
    "return np.sum(pose, **points)": "called with keywords",
    "return np.sum(*pose)": "a starred expression",
    "return (x := 1)": "an assignment inside an expression",
    "return pose[0] // 2": "an operator",
    "return pose is points": "an operator",
    "return pose in points": "an operator",
    "points[0] = 1": "an assignment to a part",
    "np = 1": '"np" is assigned',
    "sum = 1": '"sum" is assigned',
    "x += 1": '"x" is not known',
    "x = 1": "does not end with its only return",
    "if pose[0] > 0: return 1": "an if statement in a cost function",
    "yield 1": "Expr of Python in a cost function",
    "global x": "Global of Python in a cost function",
    "return " + "-" * 60 + "1": "too deep",
    "return " + "(" * 250 + "1" + ")" * 250: "a text that is not Python",
    "return " + " + ".join(["1"] * 100_000): "a text of",
    "return " + " + ".join(["1"] * 4_000): "too deep",
    "return (": "a text that is not Python",
    "return 0\0": "a text that is not Python",
    "return " + "9" * 5000: "a text that is not Python",
    "return np.sum(points, axis=0, axis=1)[0]": "a text that is not Python",
    "x = (pose[i] for i in range(3))": "a generator outside sum, max and min",
    "return max((pose[i] for i in range(3)), 0)": "a generator outside sum, max and min",
    "return np.sum(pose[i] for i in range(3))": "a generator outside sum, max and min",
    "return sum([1 for i in range()])": "range of 0 bounds",
    "return sum([1 for i in range(1, 2, 3, 4)])": "range of 4 bounds",
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:40])
def test_what_the_language_does_not_have_is_refused_where_it_is_read(line):
    with pytest.raises(SourceError) as caught:
        read(f"def cost(pose, points):\n    {line}\n")
    assert REFUSED[line] in caught.value.what
    assert str(caught.value).count("\n") == 3 and caught.value.where.startswith("cost functions, line ")
    if not any(word in REFUSED[line] for word in ("too deep", "a text", "only return", "calls itself")):
        assert caught.value.where == f"cost functions, line 2: {line}"


UNFIT = {
    "pose": "returns [3]",
    "10 ** 10 ** 9": "a power of 1e+09",
    "pose[0] ** (10 ** 9)": "exponent is not a small constant",
    "2 ** pose[0]": "exponent is not a small constant",
    "0x" + "f" * 3000: "too large",
    "10.0 ** 31": "too large",
    "1 / 0": "cannot be computed",
    "pose[3]": "index 3 of an array of shape [3]",
    "pose[pose[0]]": "an index that is no constant",
    "pose[points[0] > 0]": "an index that is no constant",
    "np.sum(pose[3:])": "picks nothing",
    "np.sum(pose, axis=1)": "axis 1",
    "np.sum(pose, pose)": "axis",
    "np.sum(pose, where=1)": "called with other arguments",
    "np.sum(pose + points[:2, 0])": "do not go together",
    "np.dot(points, points)[0, 0]": "do not go together",
    "np.cross(pose[:2], pose[:2])": "other than three",
    "max(pose, points)": "one number of [3]",
    "sum([i for i in range(10 ** 9)])": "a comprehension of 1000000000 turns",
    "sum([i for i in range(len(points) + pose[0])])": "a bound that is no constant",
    "np.sum(np.array([[[pose + i for i in range(64)] for j in range(64)] for k in range(64)]))": "more than",
    "(pose[0] > 0) + (pose[1] > 0)": "arithmetic on two conditions",
    "pose[0] and 1": "a condition that is not one bool",
    "1 if pose > 0 else 2": "a condition that is not one bool",
    "np.sum([1, 2] * 3)": "arithmetic on lists",
    "np.sum(np.array([pose, 1]))": "parts of different shapes",
    "cycle(pose)": "cycle called with 1 arguments",
    "sum(abs([pose[0], pose[1]]))": "abs of a list",
    "np.sum(np.array([1, 2]) ** -1)": "a negative power of integers",
    "max(np.sum(np.array([1, 2])), 1) ** -1": "a negative power of integers",
    "np.sum(points, axis=pose)": "axis an array of shape [3] of",
    "np.linalg.norm(pose, ord=pose)": "a norm with ord=an array of shape [3]",
    "sum([1 for i in range(0, 3, 0)])": "cannot be computed",
    "sum([1 for i in range(10 ** 30)])": "cannot be computed",
    "sum([1 for i in range(2.0)])": "a bound that is no constant",
}


@pytest.mark.parametrize("expression", UNFIT, ids=lambda e: e[:40])
def test_what_has_no_value_is_refused_with_its_line(expression):
    text = f"def cost(pose, points):\n    x = pose[0]\n    return {expression}\ndef cycle(a, b): return a\n"
    with pytest.raises(SourceError) as caught:
        read(text)["cost"](torch.zeros(2, 3), torch.zeros(1, POINTS, 3))
    assert UNFIT[expression] in caught.value.what
    assert caught.value.where.startswith("cost functions, line 3: return ")


PROGRAM = (  # assignments of which any order is a text
    "a = pose", "a = pose - 1", "a = np.abs(pose)", "a = np.array([1, 2, 3])", "a = points[0]",
    "a = np.where(pose > 0, 1, 2)", "a = points - pose", "b = a", "b = a[::-1]", "b = a[1:]", "b = [a, pose][0]",
    "b = a * 2", "b = a if 1 < 2 else pose", "b = same(a)", "b = a > 0", "c = np.where(pose[0] > 0, 1.0, 2.0)",
    "c = np.array(pose[0])", "c = pose[0]", "c = 2", "d = c", "d = max(c, 0.0)", "a -= 1", "a *= pose", "a += points",
    "a /= 2", "a **= 2", "a **= -1", "b += 1", "b *= 0.5", "b -= a", "c += 1", "c *= d", "c -= pose[1]",
    "d += np.sum(a)", "d **= -1", "d -= c", "a, b = b, a", "x, y = a[0], a[1]", "a = b = pose * 2",
    "c = np.sum(b > 0)", "c = -c", "c = a[0] if pose[0] > 0 else c")


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(st.sampled_from(PROGRAM), min_size=1, max_size=9).filter(  # integers of 64 bits would overflow
    lambda found: found.count("a **= 2") < 4), seed=st.integers(0, 5))
def test_assignments_mean_what_numpy_makes_of_them_or_are_refused(lines, seed):
    """Also where names share an array; and never is a text accepted that NumPy refuses."""
    body = "".join(f"    {line}\n" for line in ("a = pose + 0", "b = pose * 1", "c = 0.5", "d = 2", *lines))
    cost = "np.sum(a) + 2 * np.sum(b) + 3 * c + 5 * d + 7 * np.sum(pose) + 9 * np.sum(points)"
    text = f"def same(x):\n    return x\ndef cost(pose, points):\n{body}    return {cost}\n"
    try:
        assert same(text, seed)
    except SourceError as refusal:
        assert refusal.where.startswith("cost functions, line ") and refusal.fix


IN_PLACE = {  # lines: whether they are accepted
    ("a = pose", "a -= 1"): False, ("a = points[0]", "a -= pose"): False,
    ("a = pose - 1", "b = a[:2]", "a -= 1"): False,
    ("a = pose - 1", "b = [a]", "a -= 1"): False, ("a = pose - 1", "b = doubled(a)", "a -= 1"): False,
    ("a = b = pose - 1", "a -= 1"): False, ("a = pose * 1", "a += points"): False, ("a = pose > 0", "a += 1"): False,
    ("a = np.array([1, 2, 3])", "a /= 2"): False, ("a = np.where(pose[0] > 0, 1, 2.5)", "b = a", "a += 1"): False,
    ("a = [1, 2]", "a *= pose[:2]"): False,
    ("a = pose - 1", "a /= np.linalg.norm(a)"): True, ("a = pose - 1", "b = a + 1", "a -= b", "a *= 2"): True,
    ("a = pose[0]", "b = a", "a += 1"): True, ("a = 0", "a += pose", "b = 1"): True,
    ("a = np.where(pose[0] > 0, 1, 2.5)", "a += 1"): True, ("a = np.array([1, 2, 3])", "a *= 2"): True}


@pytest.mark.parametrize("lines", IN_PLACE, ids="; ".join)
def test_an_array_changes_in_place_where_no_other_name_can_see_it(lines):
    text = "def doubled(x):\n    return x\ndef cost(pose, points):\n" + "".join(f"    {line}\n" for line in lines)
    text += "    return np.sum(a) + np.sum(pose)\n"
    if IN_PLACE[lines]:
        assert all(same(text, seed) for seed in range(3))
        return
    with pytest.raises(SourceError) as caught:
        same(text)
    assert caught.value.where == f"cost functions, line {3 + len(lines)}: {lines[-1]}"
    left, operator, right = lines[-1].split(maxsplit=2)
    if "list" not in caught.value.what:  # the fix is itself accepted
        assert caught.value.fix == f"write {left} = {left} {operator[:-1]} {right}"
        fixed = text.replace(lines[-1], caught.value.fix.removeprefix("write "))
        assert same(fixed)


def test_a_list_or_an_array_that_is_too_deep_is_refused():
    for line, turns in (("a = a[None]", 80), ("a = [a]", 1700)):
        text = "def cost(pose, points):\n a = pose\n" + f" {line}\n" * turns + " return np.sum(np.array(a))\n"
        with pytest.raises(SourceError, match="dimensions|too deep"):
            same(text)


def test_other_arguments_are_refused():
    cost = read("def cost(pose, points): return np.sum(pose)")["cost"]
    with pytest.raises(SourceError, match="cost called with 1 arguments"):
        cost(torch.zeros(2, 3))
    for wrong in (torch.zeros(3, POINTS, 3), torch.tensor(1.0)):
        with pytest.raises(SourceError, match="points of shape|pose of shape"):
            cost(torch.zeros(2, 3), wrong)


@pytest.mark.parametrize("text", [
    "def f(a): return g(a)\ndef g(a): return f(a)", "def f(a): return f(a)",
    "def f(a): return h(a)\ndef g(a): return h(a)\ndef h(a): return np.sum([g(a)])"])
def test_recursion_is_refused_through_others_too(text):
    with pytest.raises(SourceError, match="calls itself"):
        read(text)


def test_calls_that_grow_with_each_other_end_early():
    doubled = "def f0(a): return a[0]\n" + "".join(
        f"def f{i}(a): return f{i - 1}(a) + f{i - 1}(a)\n" for i in range(1, 40))
    with pytest.raises(SourceError, match="calls inside each other"):
        read(doubled)["f39"](torch.zeros(1, 3))
    wide = "def f(a): return sum([sum([sum([a[0] for i in range(64)]) for j in range(64)]) for k in range(64)])"
    with pytest.raises(SourceError, match="operations"):
        read(wide)["f"](torch.zeros(1, 3))


@pytest.mark.parametrize("text, what", [
    ("", "without functions"), ("x = 1", "Assign of Python"), ("import os\ndef f(a): return 1", "an import"),
    ("def f(a): return 1\ndef f(a): return 2", "defined twice"), ("def f(np): return 1", '"np" is assigned'),
    ("def f(a=open('x')): return 1", "plain parameters"), ("@open\ndef f(a): return 1", "plain parameters"),
    ("def f(a, a): return 1", "a text that is not Python"),
    ("def f(*a): return 1", "plain parameters"), ("class A: pass", "a class"), ("def sum(a): return 1", "twice")])
def test_what_is_no_function_is_refused(text, what):
    with pytest.raises(SourceError, match=what):
        read(text)


def test_nothing_but_functions_is_ever_computed():
    """Annotations, docstrings and defaults do not run; a constant is not computed before its function is called."""
    assert set(read("def f(a: open('/nowhere')): return 1 / 0")) == {"f"}
    assert math.isinf(read("def f(a): return np.inf")["f"](torch.zeros(2, 3))[1])
