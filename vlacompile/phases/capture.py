"""Phase 2: the inference function as one graph of ops."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.compiler.capture.export import capture as trace
from vlacompile.compiler.capture.first_calls import check_calls
from vlacompile.compiler.graph.program import Program, program_text
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlacompile.policy.join_backbones import require_one_shape


@dataclass(frozen=True)
class Captured:
    """program: in the policy's own dtypes; a loop over `vc.iterations` may have only its first iterations."""

    program: Program

    def text(self) -> str:
        """The graph, one line per node."""
        return program_text(self.program)


@phase(Phase.CAPTURE)
def capture(inputs: Inputs, *, whole: bool = False, called: bool = True, progress: Progress) -> Captured:
    """whole: trace every iteration of a loop. called: call the function as a robot does before it is traced. Raises
    CaptureError with the policy's line."""
    if called and not whole:
        progress("call the inference function")
        check_calls(inputs.policy)
    progress("trace the inference function" + (" with all iterations" if whole else ""))
    program = trace(inputs.policy, whole)
    shapes = dict(zip(program.outputs, (tuple(n.meta["val"].shape) for n in program.output_nodes()), strict=True))
    require_one_shape({name: shapes[output] for name, output in program.backbones.items()})
    return Captured(program)
