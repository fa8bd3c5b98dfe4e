"""Calls the inference function before it is traced, so that code that fails, or whose results differ between calls, is
reported with its source line."""

from __future__ import annotations

from vlacompile.compiler.capture.explain_failure import policys_line
from vlacompile.compiler.capture.held_state import Held
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.capture.repeatable import call, require_repeatable
from vlacompile.errors import SourceError, VlaError
from vlacompile.policy.function_call import check_call
from vlacompile.policy.policy import Policy


def check_calls(policy: Policy) -> None:
    """Calls the function with the example inputs, and with others. Raises SourceError if PyTorch itself fails,
    CaptureError if the results differ between calls."""
    held = Held(modules_of(policy.observe, policy.step), (policy.observe, policy.step))
    try:
        first = call(policy)
    except VlaError:
        raise
    except Exception as error:  # whatever the policy's own code raises
        if isinstance(error, TypeError):
            check_call(policy.name, policy.observe, policy.sources)
        line = policys_line(error)
        text = next((t.strip() for t in str(error).splitlines() if t.strip()), "")
        raise SourceError(
            "the inference function fails with its own example inputs",
            where=f'Policy "{policy.name}"' + (f", {line}" if line else ""),
            why=f"{type(error).__name__}: {text}".rstrip(": "),
            fix="call policy.infer(**policy.example_inputs) in Python, "
                "and fix the function or the examples") from error
    require_repeatable(policy, first, held)
