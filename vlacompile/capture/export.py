"""Policy -> Program: trace the whole inference function with `torch.export`.

Owns the call of the exporter and the translation of its failures into CaptureErrors that name
the module path and the source line. Must not know stages.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from vlacompile.capture.explain import explain, without_dumps
from vlacompile.capture.history import with_frames
from vlacompile.capture.iterations import shortened
from vlacompile.capture.ops import is_random
from vlacompile.capture.program import Program, op_name
from vlacompile.capture.source_lines import line_of, lines_of_all_functions
from vlacompile.capture.to_program import to_program
from vlacompile.errors import CaptureError
from vlacompile.policy import Policy


class _Inference(torch.nn.Module):
    """The policy as a module of positional inputs, so that every weight it reaches has a name."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.infer = policy.infer
        self.input_names = tuple(policy.example_inputs)
        self.output_names = policy.outputs
        self.policy_name = policy.name
        for name, module in modules_of(policy.observe, policy.step).items():
            self.add_module(name, module)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = self.infer(**dict(zip(self.input_names, inputs, strict=True)))
        missing = [n for n in self.output_names if n not in values]
        if missing:
            raise CaptureError(
                f"the inference function returns no {', '.join(missing)}",
                where=f'Policy "{self.policy_name}"',
                why=f"it returned {', '.join(map(str, values)) or 'nothing'}",
                fix="return these tensors by name, or change outputs=",
            )
        return tuple(values[n] for n in self.output_names)


def modules_of(*functions: Callable | None) -> dict[str, torch.nn.Module]:
    """The nn.Modules that functions reach: themselves, `self`, closure cells, partial arguments and
    referenced globals, by name; a module that is part of another is left to it."""
    found: dict[str, torch.nn.Module] = {}
    seen: set[int] = set()

    def visit(name: str, value, depth: int) -> None:
        if id(value) in seen or depth > 4:
            return
        if isinstance(value, torch.nn.Module):
            seen.add(id(value))
            found[name.replace(".", "_")] = value
            return
        if inspect.ismethod(value):
            visit(name, value.__self__, depth)
            visit(name, value.__func__, depth + 1)
        elif hasattr(value, "func") and hasattr(value, "keywords"):  # functools.partial
            seen.add(id(value))
            visit(name, value.func, depth + 1)
            for i, a in enumerate(value.args):
                visit(f"{name}_{i}", a, depth + 1)
            for k, a in value.keywords.items():
                visit(k, a, depth + 1)
        elif inspect.isfunction(value):
            seen.add(id(value))
            variables = inspect.getclosurevars(value)
            for k, v in {**variables.nonlocals, **variables.globals}.items():
                visit(k, v, depth + 1)
        elif isinstance(value, Mapping):
            seen.add(id(value))
            for k, v in value.items():
                visit(f"{name}_{k}", v, depth + 1)
        elif isinstance(value, (list, tuple)):
            seen.add(id(value))
            for i, v in enumerate(value):
                visit(f"{name}_{i}", v, depth + 1)
        elif hasattr(value, "__dict__") and not inspect.ismodule(value) and not inspect.isclass(value):
            seen.add(id(value))
            for k, v in vars(value).items():
                if isinstance(v, (torch.nn.Module, Mapping, list, tuple)):
                    visit(k, v, depth + 1)

    for function in functions:
        if function is not None:
            visit(getattr(function, "__name__", "policy"), function, 0)
    inner = {id(m) for top in found.values() for m in top.modules() if m is not top}
    return {name: module for name, module in found.items() if id(module) not in inner}


def capture(policy: Policy, whole: bool = False) -> Program:
    """Trace `policy` at its example shapes. whole: also loops over `iterations` of which three would do.

    Raises CaptureError with the module path and source line of the statement that cannot be traced.
    """
    module = _Inference(policy)
    training = [name for name, m in module.named_modules() if m.training and name]
    if training:
        raise CaptureError(
            "the policy is in training mode",
            where=f'Policy "{policy.name}", module {training[0]}',
            why="dropout and batch statistics would be traced as they act in training",
            fix="call .eval() on the module before it is given to Policy",
        )
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), lines_of_all_functions(__file__), without_dumps():
            # of torch 2.13's own making (deprecated LeafSpec, assigned attributes): nothing a user could act on
            warnings.simplefilter("ignore")
            with contextlib.nullcontext([]) if whole else shortened() as lengths:
                # one tensor given twice would be taken for one input
                examples = tuple(t.clone() for t in policy.example_inputs.values())
                exported = torch.export.export(module, examples, strict=False)
            exported = exported.run_decompositions({})
    except CaptureError:
        raise
    except Exception as error:  # the exporter raises whatever the traced model raised
        raise explain(policy.name, module, error) from error
    if len(lengths) > 1:
        return capture(policy, whole=True)
    program = to_program(policy, exported)
    require_no_draws(program)
    return replace(with_frames(program), iterations=lengths[0] if lengths else None)


def require_no_draws(program: Program) -> None:
    """Raises CaptureError for random numbers that are drawn inside: an engine has no generator of PyTorch's."""
    drawn = next((n for n in program.graph.nodes if is_random(n)), None)
    if drawn is not None:
        raise CaptureError(
            f"random numbers are drawn inside ({op_name(drawn.target).split('.')[0]})",
            where=f'Policy "{program.name}", {line_of(drawn)}',
            why="no engine draws PyTorch's numbers, and a golden value of them would be another each time",
            fix='make them an input: noise=Source("step"), which the robot draws, and an example of it')
