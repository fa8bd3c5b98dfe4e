"""Policy -> Program: trace the whole inference function with `torch.export`.

Owns the call of the exporter and the translation of its failures into CaptureErrors that name
the module path and the source line. Must not know stages.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace

import torch

from vlacompile.compiler.capture.explain_failure import explain, without_dumps
from vlacompile.compiler.capture.history import with_frames
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.capture.to_program import to_program
from vlacompile.compiler.capture.trace_frames import lines_of_all_functions
from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, op_name
from vlacompile.errors import CaptureError
from vlacompile.policy.function_call import check_call
from vlacompile.policy.iterations import shortened
from vlacompile.policy.policy import Policy
from vlacompile.policy.source_lines import line_of


class _Inference(torch.nn.Module):
    """The policy as a module with positional inputs, so that every weight that it uses has a name."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.infer = policy.infer
        self.input_names = tuple(policy.example_inputs)
        self.output_names = policy.outputs
        for name, module in modules_of(policy.observe, policy.step).items():
            self.add_module(name, module)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = self.infer(**dict(zip(self.input_names, inputs, strict=True)))
        return tuple(values[n] for n in self.output_names)


def capture(policy: Policy, whole: bool = False) -> Program:
    """Trace `policy` at its example shapes. whole: trace every iteration of a loop over `iterations` instead of three.

    Raises CaptureError with the module path and source line of the statement that cannot be traced.
    """
    module = _Inference(policy)
    training = [name for name, m in module.named_modules() if m.training and name]
    if training:
        raise CaptureError(
            "the policy is in training mode",
            where=f'Policy "{policy.name}", module {training[0]}',
            why="dropout and batch statistics would be traced with their behaviour in training",
            fix="call .eval() on the module before it is given to Policy",
        )
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings(), lines_of_all_functions(__file__), without_dumps():
            # warnings about torch 2.13's own code (deprecated LeafSpec, assigned attributes): no user can act on them
            warnings.simplefilter("ignore")
            with contextlib.nullcontext([]) if whole else shortened() as lengths:
                # the exporter would merge two inputs whose example is the same tensor
                examples = tuple(t.clone() for t in policy.example_inputs.values())
                exported = torch.export.export(module, examples, strict=False)
            exported = exported.run_decompositions({})
    except CaptureError:
        raise
    except Exception as error:  # the exporter raises whatever the traced model raised
        if isinstance(error, TypeError):
            check_call(policy.name, policy.observe, policy.sources)
        raise explain(policy.name, module, error) from error
    if len(lengths) > 1:
        return capture(policy, whole=True)
    program = to_program(policy, exported)
    require_no_draws(program)
    return replace(with_frames(program), iterations=lengths[0] if lengths else None)


def require_no_draws(program: Program) -> None:
    """Raises CaptureError if the program draws random numbers: no engine has PyTorch's generator."""
    drawn = next((n for n in program.graph.nodes if is_random(n)), None)
    if drawn is not None:
        raise CaptureError(
            f"random numbers are drawn inside ({op_name(drawn.target).split('.')[0]})",
            where=f'Policy "{program.name}", {line_of(drawn)}',
            why="no engine reproduces PyTorch's random numbers, so golden outputs would differ on every run",
            fix='make them an input: noise=Source("step"), which the robot draws, with an example input')
