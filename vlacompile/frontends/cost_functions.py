"""Cost functions that a language model wrote, as batched PyTorch functions.

The text is parsed and interpreted in tensors, never executed: no name in it reaches Python. This happens where a policy
is built; a robot gets the graph that comes of it. `cost_language.py` says what a text may say.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import pairwise

import torch

from vlacompile.frontends.batched_numpy import (
    POWERS,
    BatchedNumpy,
    NotSupportedError,
    Value,
    is_number,
    rank,
    shape_text,
)
from vlacompile.frontends.cost_aliases import shared_targets
from vlacompile.frontends.cost_language import (
    ARITHMETIC,
    COMPARISONS,
    CONSTANTS,
    LOGIC,
    Text,
    checked,
    numpy_name,
)

WORK = 20_000  # expressions that one call evaluates
TURNS = 64  # of a comprehension
CALLS = 4  # functions of the text inside each other
LARGEST = 1e30  # of a constant
_WHOLE = frozenset(("abs", "absolute", "amax", "amin", "array", "clip", "cross", "dot", "max", "maximum", "min",
                    "minimum", "square", "sum", "where"))  # functions that give integers of integers


@dataclass(frozen=True)
class CostFunction:
    """Call it with a tensor [batch,*shape] per parameter, where batch may be 1 in some; it gives the costs [batch]."""

    name: str
    parameters: tuple[str, ...]
    text: Text = field(repr=False)

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        node = self.text.functions[self.name]
        if len(arguments) != len(self.parameters):
            raise self.text.refusal(node, f"{self.name} called with {len(arguments)} arguments",
                                    f"it takes {', '.join(self.parameters) or 'none'}", "give a tensor for each")
        batch = max((a.shape[0] for a in arguments if a.dim()), default=1)
        for name, a in zip(self.parameters, arguments, strict=True):
            if a.dim() == 0 or a.shape[0] not in (1, batch):
                raise self.text.refusal(node, f"{name} of shape {list(a.shape)}", f"the batch, its first dimension, "
                                        f"is {batch} in others", f"give {name} for each of the batch, or 1 for all")
        dtype = next((a.dtype for a in arguments if a.is_floating_point()), torch.float32)
        numpy = BatchedNumpy(dtype)
        cost = _Run(self.text, numpy).called(node, arguments)
        if isinstance(cost, (list, tuple)) or cost is None or rank(cost):
            raise self.text.refusal(node.body[-1], f"{self.name} returns {shape_text(cost)}", "a cost is one number",
                                    "sum it: np.sum(...)")
        return numpy.numbers(cost).expand(batch)


def read(text: str) -> dict[str, CostFunction]:
    """{name: function}, in the order of the text. Raises SourceError, with the line that is refused."""
    parsed = checked(text)
    return {name: CostFunction(name, tuple(a.arg for a in node.args.args), parsed)
            for name, node in parsed.functions.items()}


class _Marked:
    """A set of tensors, by what they are and not by their numbers."""

    def __init__(self) -> None:
        self.tensors: dict[int, torch.Tensor] = {}  # held, so that no other gets their id

    def update(self, values: Iterable[Value]) -> None:
        self.tensors |= {id(v): v for v in values if isinstance(v, torch.Tensor)}

    def __contains__(self, value: Value) -> bool:
        return id(value) in self.tensors


class _Run:
    """One call: values are numbers, lists of values, and batched tensors."""

    def __init__(self, text: Text, numpy: BatchedNumpy):
        self.text, self.np, self.work, self.depth = text, numpy, 0, 0
        self.integers, self.boxed = _Marked(), _Marked()  # arrays that may be of integers; arrays of no dimension
        self.builtins: dict[str, Callable[..., Value]] = {
            "abs": self.absolute, "float": self.scalar, "len": self.length, "sum": self.total,
            "max": partial(self.extreme, torch.gt), "min": partial(self.extreme, torch.lt)}
        self.kinds: dict[type[ast.expr], Callable[..., Value]] = {
            ast.Constant: self.constant, ast.Name: self.name, ast.Attribute: self.attribute, ast.List: self.listed,
            ast.Tuple: self.listed, ast.ListComp: self.comprehension, ast.GeneratorExp: self.comprehension,
            ast.BinOp: self.binary_operation, ast.UnaryOp: self.unary_operation, ast.BoolOp: self.logic,
            ast.Compare: self.comparison, ast.IfExp: self.choice, ast.Call: self.call,
            ast.Subscript: self.subscript}

    def called(self, node: ast.FunctionDef, arguments: Sequence[Value]) -> Value:
        names = [a.arg for a in node.args.args]
        if len(names) != len(arguments):
            raise NotSupportedError(f"{node.name} called with {len(arguments)} arguments",
                                    f"it takes {', '.join(names) or 'none'}", "give each of them")
        if self.depth == CALLS:
            raise NotSupportedError(f"more than {CALLS} calls inside each other", "a cost function is short",
                                    "compute it in one function")
        self.depth += 1
        known, value, shared = dict(zip(names, arguments, strict=True)), None, shared_targets(node)
        for statement in node.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return)):
                assert statement.value is not None, "checked"
                value = self.at(statement.value, known)
                if isinstance(statement, ast.AugAssign):
                    value = self.guarded(statement, partial(self.augmented, statement, self.at(statement.target, known),
                                                            value, statement in shared))
                if not isinstance(statement, ast.Return):
                    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                    for target in targets:
                        self.guarded(statement, partial(self.assign, known, target, value))
        self.depth -= 1
        return value

    def augmented(self, node: ast.AugAssign, old: Value, by: Value, shared: bool) -> Value:
        """The new value of a name. NumPy writes it into an array's own memory: its shape and dtype stay."""
        new = self.binary(node.op, old, by)
        if not isinstance(old, torch.Tensor) or not (rank(old) or old in self.boxed):
            if isinstance(old, list):
                raise NotSupportedError("a list is changed in place", "Python joins and repeats lists",
                                        "make an array of it first: np.array([...])")
            return new
        plain = ast.BinOp(node.target, node.op, node.value)
        fix = f"write {ast.unparse(node.target)} = {ast.unparse(plain)[:200]}"
        if shared:
            raise NotSupportedError("an array is changed in place", "other names, or the caller, may hold it and would "
                                    "see the change", fix)
        if new.shape[1:] != old.shape[1:]:
            raise NotSupportedError(f"an array of shape {shape_text(old)} becomes {shape_text(new)} in place",
                                    "NumPy keeps its shape", fix)
        if (old.dtype == torch.bool) > (new.dtype == torch.bool) or self.is_whole(old) > self.is_whole(new):
            raise NotSupportedError("an array of integers or bools becomes one of other numbers in place",
                                    "NumPy keeps its type", fix)
        return new

    def assign(self, known: dict[str, Value], target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            known[target.id] = value
            return
        assert isinstance(target, (ast.Tuple, ast.List)), "checked"
        parts = self.parts(value)
        if isinstance(value, torch.Tensor) and self.is_whole(value):
            self.integers.update(parts)
        if len(parts) != len(target.elts):
            raise NotSupportedError(f"{len(parts)} values for {len(target.elts)} names", "each name takes one",
                                    "assign parts by index: x = point[0]")
        for name, part in zip(target.elts, parts, strict=True):
            self.assign(known, name, part)

    def at(self, node: ast.expr, known: dict[str, Value]) -> Value:
        """The value of an expression; what cannot be computed is refused with its line."""
        self.work += 1
        if self.work > WORK:
            raise self.text.refusal(node, f"a cost of more than {WORK} operations", "it is computed at every replan",
                                    "write fewer terms")
        return self.guarded(node, lambda: self.kinds[type(node)](node, known))

    def guarded(self, node: ast.AST, compute: Callable[[], Value]) -> Value:
        try:
            value = compute()
        except NotSupportedError as error:
            raise self.text.refusal(node, error.what, error.why, error.fix) from error
        except (ArithmeticError, ValueError) as error:
            raise self.text.refusal(node, "a constant that cannot be computed", str(error),
                                    "write another number") from error
        except RecursionError as error:
            raise self.text.refusal(node, "a value that is too deep", "lists and calls are inside each other",
                                    "compute it in fewer of them") from error
        except (TypeError, LookupError, RuntimeError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise self.text.refusal(node, "a value that cannot be computed", first, "compute it from arrays and "
                                    "numbers whose shapes go together") from error
        if is_number(value) and LARGEST < abs(value) < math.inf:
            raise self.text.refusal(node, "a constant that is too large", f"constants are at most {LARGEST:g}",
                                    "write a smaller number")
        return value

    # kinds of expressions

    def constant(self, node: ast.Constant, known: dict) -> Value:
        return node.value

    def name(self, node: ast.Name, known: dict) -> Value:
        return known[node.id]

    def attribute(self, node: ast.Attribute, known: dict) -> Value:
        return CONSTANTS[numpy_name(node)]

    def listed(self, node: ast.List | ast.Tuple, known: dict) -> Value:
        return [self.at(part, known) for part in node.elts]

    def comprehension(self, node: ast.ListComp | ast.GeneratorExp, known: dict) -> Value:
        one = node.generators[0]
        if isinstance(one.iter, ast.Call):
            over: Sequence[Value] = range(*(self.whole(a, known) for a in one.iter.args))
        else:
            over = self.at(one.iter, known)
        if len(over) > TURNS:
            raise NotSupportedError(f"a comprehension of {len(over)} turns", f"at most {TURNS} are allowed",
                                    "use functions of whole arrays: np.sum(..., axis=0)")
        return [self.at(node.elt, known | {one.target.id: value}) for value in over]  # type: ignore[attr-defined]

    def binary_operation(self, node: ast.BinOp, known: dict) -> Value:
        return self.binary(node.op, self.at(node.left, known), self.at(node.right, known))

    def binary(self, op: ast.operator, left: Value, right: Value) -> Value:
        new = self.computed(op, left, right)
        if not isinstance(op, ast.Div) and self.is_whole(left) and self.is_whole(right):
            self.integers.update([new])
        return new

    def computed(self, op: ast.operator, left: Value, right: Value) -> Value:
        self.no_lists(left, right)
        if isinstance(op, tuple(LOGIC)):
            return self.np.logical(LOGIC[type(op)], left, right)
        if isinstance(op, ast.MatMult):
            if min(rank(left), rank(right)) == 0:
                raise NotSupportedError("@ of a number", "it multiplies vectors and matrices", "write *")
            return self.np.dot(left, right)
        constants = is_number(left) and is_number(right)
        if isinstance(op, ast.Pow):
            if not constants and self.is_whole(left) and isinstance(right, int) and right < 0:
                raise NotSupportedError("a negative power of integers", "NumPy refuses it", f"write ** {right}.0")
            return _power(left, right) if constants else self.np.power(left, right)
        function = ARITHMETIC[type(op)]
        return function(left, right) if constants else self.np.arithmetic(function, left, right)

    def no_lists(self, *values: Value) -> None:
        if any(isinstance(v, list) for v in values) and not any(isinstance(v, torch.Tensor) for v in values):
            raise NotSupportedError("arithmetic on lists", "Python joins, repeats and sorts them",
                                    "make arrays of them: np.array([...])")

    def unary_operation(self, node: ast.UnaryOp, known: dict) -> Value:
        value = self.at(node.operand, known)
        if isinstance(node.op, ast.Not):
            return not value if is_number(value) else self.np.logical(torch.logical_not, self.condition(value))
        self.no_lists(value)
        if isinstance(node.op, ast.Invert):
            if is_number(value):
                raise NotSupportedError("~ of a constant", "Python counts its bits", "write the number")
            return self.np.logical(torch.logical_not, value)
        if isinstance(node.op, ast.UAdd):
            return value if is_number(value) else self.np.numbers(value)
        if is_number(value):
            return -value
        return self.marked(self.np.negative(value), self.is_whole(value))

    def logic(self, node: ast.BoolOp, known: dict) -> Value:
        values = [self.condition(self.at(part, known)) for part in node.values]
        return reduce(partial(self.np.logical, LOGIC[type(node.op)]), values)

    def comparison(self, node: ast.Compare, known: dict) -> Value:
        values = [self.at(part, known) for part in (node.left, *node.comparators)]
        for pair in pairwise(values):
            self.no_lists(*pair)
        found = [COMPARISONS[type(op)](a, b) if is_number(a) and is_number(b)
                 else self.np.compare(COMPARISONS[type(op)], a, b)
                 for op, a, b in zip(node.ops, values, values[1:], strict=False)]
        return found[0] if len(found) == 1 else reduce(partial(self.np.logical, torch.logical_and),
                                                       map(self.condition, found))

    def choice(self, node: ast.IfExp, known: dict) -> Value:
        chosen = self.at(node.test, known)
        if is_number(chosen):
            return self.at(node.body if chosen else node.orelse, known)
        body, other = self.at(node.body, known), self.at(node.orelse, known)
        if self.np.array(body).shape[1:] != self.np.array(other).shape[1:]:
            raise NotSupportedError("a choice of values of different shapes", "a value has one shape",
                                    "give values of one shape")
        found = self.np.where(self.condition(chosen), body, other)
        return self.marked(found, self.is_whole([body, other], any), self.has_boxed([body, other]))

    def call(self, node: ast.Call, known: dict) -> Value:
        arguments = [self.at(a, known) for a in node.args]
        if isinstance(node.func, ast.Name):
            if node.func.id in self.text.functions:
                return self.called(self.text.functions[node.func.id], arguments)
            function = self.builtins[node.func.id]
        else:
            function = self.np.functions[numpy_name(node.func) or ""]
        named = {k.arg or "": self.at(k.value, known) for k in node.keywords}
        try:
            inspect.signature(function).bind(*arguments, **named)
        except TypeError as error:
            raise NotSupportedError(f"{ast.unparse(node.func)} called with other arguments", str(error),
                                    "give those that are required, and axis by its name") from error
        found = function(*arguments, **named)
        name = numpy_name(node.func) or ast.unparse(node.func)
        some = any if name in ("max", "min") and isinstance(node.func, ast.Name) else all
        boxed = name in ("array", "where") or (some is any and self.has_boxed(arguments))
        return self.marked(found, name in _WHOLE and some(self.is_whole(a, some) for a in arguments), boxed)

    def subscript(self, node: ast.Subscript, known: dict) -> Value:
        value = self.at(node.value, known)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        index = [self.index(part, known) for part in parts]
        if isinstance(value, torch.Tensor):
            return self.marked(self.np.taken(value, index), self.is_whole(value))
        if not isinstance(value, (list, tuple)) or len(index) != 1 or not isinstance(index[0], (int, slice)):
            raise NotSupportedError(f"an index of {shape_text(value)}", "arrays and lists have elements",
                                    "index arrays, and lists by one number")
        if isinstance(index[0], int) and not -len(value) <= index[0] < len(value):
            raise NotSupportedError(f"index {index[0]} of a list of {len(value)}", "there is none",
                                    f"give a number from 0 to {len(value) - 1}")
        return value[index[0]]

    def index(self, node: ast.expr, known: dict) -> int | slice | list[int] | None:
        if isinstance(node, ast.Slice):
            return slice(*(None if p is None else self.whole(p, known) for p in (node.lower, node.upper, node.step)))
        value = self.at(node, known)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise NotSupportedError("an index that is no constant", "which part is read is known before",
                                    "index by whole numbers; choose by data with np.where")
        return value

    def whole(self, node: ast.expr, known: dict) -> int:
        value = self.at(node, known)
        if not isinstance(value, int) or isinstance(value, bool):
            raise NotSupportedError("a bound that is no constant", "which parts are read is known before",
                                    "write whole numbers")
        return value

    # what NumPy's arrays are of, which tensors here do not tell: all numbers are floats

    def marked(self, value: Value, whole: bool, boxed: bool = False) -> Value:
        if whole:
            self.integers.update([value])
        if boxed and rank(value) == 0:
            self.boxed.update([value])
        return value

    def is_whole(self, value: Value, some: Callable[..., bool] = all) -> bool:
        """Whether it may be of integers or bools."""
        if isinstance(value, (list, tuple)):
            return some(self.is_whole(v, some) for v in value)
        if isinstance(value, torch.Tensor):
            return not value.is_floating_point() or value in self.integers
        return value is None or isinstance(value, int)

    def has_boxed(self, value: Value) -> bool:
        return any(map(self.has_boxed, value)) if isinstance(value, (list, tuple)) else value in self.boxed

    # Python's own functions

    def parts(self, value: Value) -> list[Value]:
        """What iterating over a list or an array gives."""
        if isinstance(value, torch.Tensor) and rank(value):
            if value.shape[1] > TURNS:
                raise NotSupportedError(f"the {value.shape[1]} elements of an array, one by one",
                                        f"at most {TURNS} are", "use NumPy's functions of whole arrays")
            return list(value.unbind(1))
        if not isinstance(value, (list, tuple)):
            raise NotSupportedError(f"the elements of {shape_text(value)}", "a number has none",
                                    "give a list or an array")
        return list(value)

    def condition(self, value: Value) -> torch.Tensor:
        """bool of no dimension: what `and`, `or`, `not` and `if` take."""
        found = self.np.array(value)
        if found.dtype != torch.bool or rank(found):
            raise NotSupportedError("a condition that is not one bool", f"it is of shape {shape_text(found)}",
                                    "compare numbers, as in x > 0; for arrays use np.where, & and |")
        return found

    def scalar(self, x: Value) -> Value:
        if is_number(x):
            return float(x)
        if rank(x) or isinstance(x, (list, tuple)):
            raise NotSupportedError(f"one number of {shape_text(x)}", "an array has several", "index it first")
        return self.np.numbers(x)

    def absolute(self, x: Value) -> Value:
        if isinstance(x, list):
            raise NotSupportedError("abs of a list", "Python's takes numbers and arrays", "write np.abs(...)")
        return abs(x) if is_number(x) else self.np.absolute(x)

    def length(self, x: Value) -> int:
        return x.shape[1] if isinstance(x, torch.Tensor) and rank(x) else len(self.parts(x))

    def total(self, x: Value) -> Value:
        if isinstance(x, torch.Tensor) and rank(x):
            return self.np.sum(x, 0)
        return reduce(partial(self.binary, ast.Add()), self.parts(x), 0)

    def extreme(self, better: Callable[..., torch.Tensor], *values: Value) -> Value:
        """Python's max and min: the first that no later one is better than."""
        found = self.parts(values[0]) if len(values) == 1 else list(values)
        if not found:
            raise NotSupportedError("an extreme of nothing", "the list is empty", "give at least one number")
        if all(map(is_number, found)):
            return (max if better is torch.gt else min)(found)
        best, *others = map(self.scalar, found)
        for other in others:
            best = self.np.where(self.np.compare(better, other, best), other, best)
        return best


def _power(base: float, exponent: float) -> float:
    if not abs(exponent) <= POWERS:
        raise NotSupportedError(f"a power of {exponent:g}", f"exponents are at most {POWERS:g}",
                                "write a smaller exponent")
    found = base**exponent
    if isinstance(found, complex):
        raise NotSupportedError("a root of a negative number", f"{base:g} ** {exponent:g}", "write np.abs(...) first")
    return found
