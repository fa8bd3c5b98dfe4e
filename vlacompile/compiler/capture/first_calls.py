"""The inference function is called before it is traced: what fails, or differs from call to call, is told by its own
line."""

from __future__ import annotations

from vlacompile.compiler.capture.explain_failure import policys_line
from vlacompile.compiler.capture.held_state import Held
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.capture.repeatable import call, require_repeatable
from vlacompile.errors import SourceError, VlaError
from vlacompile.policy.function_call import check_call
from vlacompile.policy.policy import Policy


def check_calls(policy: Policy) -> None:
    """A few calls with the example inputs and others. Raises SourceError where PyTorch itself fails, CaptureError where
    they differ."""
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
                "and mend the function or the examples") from error
    require_repeatable(policy, first, held)
