"""The small language of cost functions: what a text may say, whatever its values are.

Functions of assignments and one `return`: arithmetic, comparisons, indices, comprehensions over constants, and some
functions of NumPy. Everything else is refused with its line. `cost_functions.py` says what it means.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from dataclasses import dataclass

import torch

from vlacompile.frontends.batched_numpy import BatchedNumpy, is_number
from vlart.errors import SourceError, printable

LENGTH, DEPTH = 20_000, 40  # of a text in characters, and of its expressions in each other
NUMPY = "np"
BUILTINS = ("abs", "float", "len", "max", "min", "sum")
CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf}
FUNCTIONS = tuple(BatchedNumpy(torch.float32).functions)
ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
COMPARISONS = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
               ast.Eq: operator.eq, ast.NotEq: operator.ne}
LOGIC = {ast.BitAnd: torch.logical_and, ast.BitOr: torch.logical_or, ast.And: torch.logical_and,
         ast.Or: torch.logical_or}

_EXPRESSIONS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.IfExp, ast.Attribute, ast.Subscript,
                ast.Name, ast.List, ast.Tuple, ast.Constant, ast.ListComp, ast.GeneratorExp, ast.Slice, ast.keyword,
                ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
_BINARY = (*ARITHMETIC, ast.Pow, ast.MatMult, ast.BitAnd, ast.BitOr)
_KINDS = {ast.For: "a loop", ast.While: "a loop", ast.AsyncFor: "a loop", ast.If: "an if statement",
          ast.Import: "an import", ast.ImportFrom: "an import", ast.Lambda: "a lambda", ast.FunctionDef: "a function",
          ast.NamedExpr: "an assignment inside an expression", ast.JoinedStr: "a formatted text", ast.Try: "a try",
          ast.With: "a with statement", ast.ClassDef: "a class", ast.Starred: "a starred expression"}
_FIXES = {ast.For: "write a sum over constants: sum([... for i in range(3)]), or np.sum(..., axis=0)",
          ast.While: "write a sum over constants: sum([... for i in range(3)])",
          ast.If: "choose a value: np.where(condition, a, b)",
          ast.Import: f"leave it out: {NUMPY} is there", ast.ImportFrom: f"leave it out: {NUMPY} is there"}
_WRITE = "write assignments, arithmetic and functions of NumPy: " + ", ".join(f"np.{f}" for f in FUNCTIONS)


@dataclass(frozen=True)
class Text:
    lines: tuple[str, ...]
    functions: dict[str, ast.FunctionDef]

    def refusal(self, node: ast.AST | BaseException | None, what: str, why: str, fix: str) -> SourceError:
        number = getattr(node, "lineno", None) or 1
        line = self.lines[number - 1].strip() if number <= len(self.lines) else ""
        shown = printable(line if len(line) <= 80 else line[:77] + "...")
        return SourceError(printable(what), where=f"cost functions, line {number}: {shown}", why=printable(why),
                           fix=fix)


def checked(text: str) -> Text:
    """Raises SourceError, with the line that is refused."""
    parsed = _parsed(text)
    for node in parsed.functions.values():
        _check_function(parsed, node)
    _check_calls(parsed)
    _check_names(parsed, text)
    return parsed


def _check_names(parsed: Text, text: str) -> None:
    """What Python refuses of a text beyond its grammar: repeated parameters and keywords. Nothing runs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "cost functions", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_python(parsed, error) from error


def _not_python(text: Text, error: BaseException) -> SourceError:
    return text.refusal(error, "a text that is not Python", getattr(error, "msg", None) or str(error),
                        "give functions in Python's syntax")


def _parsed(text: str) -> Text:
    nothing = Text(tuple(re.split("\r\n|\r|\n", text[:LENGTH])), {})
    if len(text) > LENGTH:
        raise nothing.refusal(None, f"a text of {len(text)} characters", f"at most {LENGTH} are read",
                              "give the constraints of one stage alone")
    deep = f"expressions are at most {DEPTH} deep in each other", "compute it in several assignments"
    try:
        tree = ast.parse(text)
    except (RecursionError, MemoryError) as error:
        raise nothing.refusal(None, "an expression that is too deep", *deep) from error
    except (SyntaxError, ValueError) as error:
        raise _not_python(nothing, error) from error
    level: list[ast.AST] = list(tree.body)
    for _ in range(DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        at = next((n for n in level if hasattr(n, "lineno")), None)
        raise nothing.refusal(at, "an expression that is too deep", *deep)
    functions: dict[str, ast.FunctionDef] = {}
    for node in tree.body:
        if _is_text(node):
            continue
        if not isinstance(node, ast.FunctionDef):
            raise _not_allowed(nothing, node)
        if node.name in functions or node.name in (NUMPY, "range", *BUILTINS):
            raise nothing.refusal(node, f'"{node.name}" is defined twice', "a name means one thing",
                                  "give it another name")
        functions[node.name] = node
    if not functions:
        raise nothing.refusal(None, "a text without functions", "costs are functions: def cost(...): ...",
                              "give at least one function")
    return Text(nothing.lines, functions)


def _is_text(node: ast.stmt) -> bool:
    """A docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _not_allowed(text: Text, node: ast.AST) -> SourceError:
    kind = _KINDS.get(type(node), f"{type(node).__name__} of Python")
    return text.refusal(node, f"{kind} in a cost function", "it is not in the language of cost functions",
                        _FIXES.get(type(node), _WRITE))


def _check_function(text: Text, node: ast.FunctionDef) -> None:
    arguments = node.args
    plain = not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs
                 or arguments.defaults or node.decorator_list)
    if not plain:
        raise text.refusal(node, f"{node.name} has decorators, or other than plain parameters",
                           "a cost function is called with arrays alone", "write def cost(end_effector, keypoints):")
    known: set[str] = set()
    for argument in arguments.args:
        _check_new_name(text, argument, argument.arg)
        known.add(argument.arg)
    for statement in node.body:
        if _is_text(statement):
            continue
        if isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return)) and statement.value:
            _check_expression(text, statement.value, known)
            known |= _check_targets(text, statement, known)
        else:
            raise _not_allowed(text, statement)
    returns = [s for s in node.body if isinstance(s, ast.Return)]
    if returns != node.body[-1:]:
        raise text.refusal(node, f"{node.name} does not end with its only return", "a cost function gives one number",
                           "assign what is computed, and return it at the end")


def _check_targets(text: Text, statement: ast.stmt, known: set[str]) -> set[str]:
    """The names that a statement assigns."""
    if isinstance(statement, ast.Return):
        return set()
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names = [n for t in targets for n in (t.elts if isinstance(t, (ast.Tuple, ast.List)) else [t])]
    for name in names:
        if not isinstance(name, ast.Name):
            raise text.refusal(name, "an assignment to a part", "values do not change once they are computed",
                               "compute a new array: np.array([...])")
        _check_new_name(text, name, name.id)
        if isinstance(statement, ast.AugAssign) and name.id not in known:
            raise _unknown(text, name, name.id)
    if isinstance(statement, ast.AugAssign) and not isinstance(statement.op, _BINARY):
        raise text.refusal(statement, "an operator that is not in the language of cost functions",
                           "there are + - * / ** @ & |", _WRITE)
    return {n.id for n in names if isinstance(n, ast.Name)}


def _check_new_name(text: Text, node: ast.AST, name: str) -> None:
    if name in (NUMPY, "range", *BUILTINS, *text.functions):
        raise text.refusal(node, f'"{name}" is assigned', "it is the name of a function", "use another name")


def _unknown(text: Text, node: ast.AST, name: str) -> SourceError:
    return text.refusal(node, f'"{name}" is not known', "names are parameters, what was assigned before, "
                        f"{NUMPY} and {', '.join(BUILTINS)}", _WRITE)


def _check_expression(text: Text, node: ast.AST, known: set[str]) -> None:
    """Names, functions and kinds of expressions, whatever the values are. Not deeper than DEPTH."""
    if not isinstance(node, _EXPRESSIONS):
        raise _not_allowed(text, node)
    if (isinstance(node, ast.BinOp) and not isinstance(node.op, _BINARY)) or \
            (isinstance(node, ast.Compare) and not all(isinstance(o, tuple(COMPARISONS)) for o in node.ops)):
        raise text.refusal(node, "an operator that is not in the language of cost functions",
                           "there are + - * / ** @ & | and the comparisons by size", _WRITE)
    if isinstance(node, ast.Constant) and not (node.value is None or is_number(node.value)):
        raise text.refusal(node, f"{type(node.value).__name__} in a cost function", "constants are numbers", _WRITE)
    if isinstance(node, ast.Name) and node.id not in known:
        raise _unknown(text, node, node.id)
    if isinstance(node, ast.Attribute):
        if numpy_name(node) not in CONSTANTS:
            raise text.refusal(node, f'"{ast.unparse(node)}" is not known', "of attributes there are only "
                               f"those of {NUMPY}", _WRITE)
        return
    if isinstance(node, ast.GeneratorExp):
        raise text.refusal(node, "a generator outside sum, max and min", "Python computes it later, and only once",
                           "write a list: [... for i in range(3)]")
    if isinstance(node, ast.ListComp):
        _check_comprehension(text, node, known)
        return
    if isinstance(node, ast.Call):
        _check_called(text, node)
        if _iterates(node):
            _check_comprehension(text, node.args[0], known)
            return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.Call) and child is node.func):
            _check_expression(text, child, known)


def _iterates(node: ast.Call) -> bool:
    """Whether it is sum, max or min over a generator, at once."""
    return (isinstance(node.func, ast.Name) and node.func.id in ("sum", "max", "min") and len(node.args) == 1
            and isinstance(node.args[0], ast.GeneratorExp))


def _check_comprehension(text: Text, node: ast.expr, known: set[str]) -> None:
    assert isinstance(node, (ast.ListComp, ast.GeneratorExp))
    one = node.generators[0]
    if len(node.generators) > 1 or one.ifs or one.is_async or not isinstance(one.target, ast.Name):
        raise text.refusal(node, "a comprehension of more than one plain loop", "its turns are counted before",
                           "write [... for i in range(3)]")
    _check_new_name(text, node, one.target.id)
    counted = isinstance(one.iter, ast.Call) and isinstance(one.iter.func, ast.Name) and one.iter.func.id == "range"
    if counted and not one.iter.keywords:
        if not 1 <= len(one.iter.args) <= 3:
            raise text.refusal(node, f"range of {len(one.iter.args)} bounds", "it takes one, two or three",
                               "write range(3)")
        for argument in one.iter.args:
            _check_expression(text, argument, known)
    elif isinstance(one.iter, (ast.List, ast.Tuple)):
        _check_expression(text, one.iter, known)
    else:
        raise text.refusal(node, "a loop over data", "how often a loop runs is known before, from constants",
                           "write range(3), or a list of constants, and index by it")
    _check_expression(text, node.elt, known | {one.target.id})


def _check_called(text: Text, node: ast.Call) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    known = name in BUILTINS or name in text.functions or numpy_name(node.func) in FUNCTIONS
    if not known:
        raise text.refusal(node, f'"{ast.unparse(node.func)[:60]}" is not a function of the language',
                           "names of Python and of other packages are not there", _WRITE)
    if any(k.arg is None for k in node.keywords) or (name is not None and node.keywords):
        raise text.refusal(node, f'"{ast.unparse(node.func)}" is called with keywords',
                           f"only functions of {NUMPY} have some, by name", "give the arguments in order")


def numpy_name(node: ast.AST) -> str | None:
    """"linalg.norm" of np.linalg.norm"""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if parts and isinstance(node, ast.Name) and node.id == NUMPY else None


def _check_calls(text: Text) -> None:
    """No function calls itself, directly or through others."""
    calls = {name: [c for c in ast.walk(node) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)
                    and c.func.id in text.functions] for name, node in text.functions.items()}
    reached = {name: {c.func.id for c in found} for name, found in calls.items()}
    for _ in calls:
        reached = {name: names | {m for n in names for m in reached[n]} for name, names in reached.items()}
    for name, found in calls.items():
        for call in found:
            if name == call.func.id or name in reached[call.func.id]:
                raise text.refusal(call, f"{name} calls itself", "how often it would is known on no robot",
                                   "write a sum over constants: sum([... for i in range(3)])")
