"""Calls the inference function before it is traced, so that code that fails, or whose results differ between calls, is
reported with its source line."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlacompile.compiler.capture.explain_failure import policys_line
from vlacompile.compiler.capture.held_state import Held
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.capture.repeatable import call, require_repeatable
from vlacompile.policy.function_call import check_call
from vlacompile.policy.policy import Policy
from vlart.errors import SourceError, VlaError


def check_calls(policy: Policy) -> None:
    """Calls the function with the example inputs, and with others. Raises SourceError if PyTorch itself fails,
    CaptureError if the results differ between calls."""
    held = Held(modules_of(*policy.functions), policy.functions)
    try:
        first = call(policy)
    except VlaError:
        raise
    except Exception as error:  # whatever the policy's own code raises
        if isinstance(error, TypeError):
            check_call(policy.name, policy.observe, policy.arguments)
        line = policys_line(error)
        text = next((t.strip() for t in str(error).splitlines() if t.strip()), "")
        raise SourceError(
            "the inference function fails with its own example inputs",
            where=f'Policy "{policy.name}"' + (f", {line}" if line else ""),
            why=f"{type(error).__name__}: {text}".rstrip(": "),
            fix="call policy.infer(**policy.example_inputs) in Python, "
                "and fix the function or the examples") from error
    _require_an_action(policy, first)
    require_repeatable(policy, first, held)


def _require_an_action(policy: Policy, first: Mapping[str, torch.Tensor]) -> None:
    """Other outputs may hold NaN where PyTorch has NaN; an action that holds one is refused by the runtime."""
    name = policy.outputs[0]
    if first[name].is_floating_point() and bool(first[name].isnan().any()):
        raise SourceError(
            f'"{name}" is NaN for the example inputs', where=f'Policy "{policy.name}", example_inputs',
            why="the inference function itself, run by PyTorch, returns no number there: "
            f"{int(first[name].isnan().sum())} of {first[name].numel()} elements",
            fix="give example inputs as the robot sends them, and check the weights for NaN")
