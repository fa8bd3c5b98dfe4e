"""Policy -> Program: trace the whole inference function with `torch.export`.

Owns the call of the exporter and the translation of its failures into CaptureErrors that name
the module path and the source line. Must not know stages.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, replace

import torch
from torch._subclasses.fake_tensor import FakeTensor

from vlacompile.compiler.capture.all_iterations import LEFT, differing_iteration
from vlacompile.compiler.capture.buffer_state import KEEP_NOTHING
from vlacompile.compiler.capture.constants import Constants, computed_at_once
from vlacompile.compiler.capture.encoder_padding import padded_with_zeros
from vlacompile.compiler.capture.explain_failure import DECIDED_BY_DATA, explain, without_dumps
from vlacompile.compiler.capture.functionalise import functionalise
from vlacompile.compiler.capture.gradients import ask_nothing, by_autograd
from vlacompile.compiler.capture.history import with_frames
from vlacompile.compiler.capture.loop_condition import require_decided_ends
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.compiler.capture.noted_iterations import noted_iteration
from vlacompile.compiler.capture.plain_tensors import plain_tensors
from vlacompile.compiler.capture.random_draws import require_no_draws
from vlacompile.compiler.capture.to_program import to_program
from vlacompile.compiler.capture.trace_frames import lines_of_all_functions
from vlacompile.compiler.capture.traced_function import unchecked_distributions, within_the_function
from vlacompile.compiler.capture.training_mode import require_evaluation_mode
from vlacompile.compiler.capture.uncompiled_graphs import uncompiled_graphs
from vlacompile.compiler.graph.loop_end import is_mark
from vlacompile.compiler.graph.program import Program
from vlacompile.policy.function_call import check_call
from vlacompile.policy.iterations import traced
from vlacompile.policy.policy import Policy
from vlart.errors import CaptureError, SourceError


class _Inference(torch.nn.Module):
    """The policy as a module with positional inputs, so that every weight that it uses has a name. static: what never
    changes, which is a constant of the function, whatever stands in its place among the inputs."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.within = contextlib.nullcontext
        self.infer = policy.infer
        self.input_names = tuple(policy.inputs)
        self.output_names = policy.returned
        self.static = {n: t.detach().clone() for n, t in policy.example_inputs.items()
                       if policy.sources[n].update == "static"}
        for name, module in modules_of(*policy.functions).items():
            self.add_module(f"{name}_" if hasattr(self, name) else name, module)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with self.within():
            values = self.infer(**dict(zip(self.input_names, inputs, strict=True)) | self.static)
        ask_nothing(inputs)
        return tuple(values[n] for n in self.output_names)


def capture(policy: Policy, whole: bool = False) -> Program:
    """Trace `policy` at its example shapes. whole: trace every iteration of a loop over `iterations` instead of three;
    so it is done as well where three do not stand for all.

    Raises CaptureError with the module path and source line of the statement that cannot be traced.
    """
    module = _Inference(policy)
    require_evaluation_mode(policy.name, module)
    module.eval()
    try:
        program = _traced(policy, module, _Way(whole))
    except CaptureError as reason:
        raise _leaves_a_loop(policy) or reason from reason.__cause__
    loops = bool(program.iterations) or any(map(is_mark, program.graph.nodes))
    if not loops or any(isinstance(p, FakeTensor) for p in module.parameters()):  # weights without content
        return program
    unlike = differing_iteration(policy)
    if whole or not unlike:
        return program
    program = _traced(policy, module, _Way(whole=True))
    return replace(program, notes=(*program.notes, unlike))


def _leaves_a_loop(policy: Policy) -> CaptureError | None:
    """Of a function that cannot be traced: the error if that is for a value that leaves a loop."""
    try:
        differing_iteration(policy)
    except CaptureError as error:
        return error if error.what == LEFT else None
    except Exception:  # noqa: BLE001  whatever the policy raises: the trace has said it
        return None
    return None


@dataclass(frozen=True)
class _Way:
    """How a function is traced. whole: as of `capture`. written: buffers that a call changes; they are inputs of the
    trace, so that it shows what becomes of their content, while other buffers are constants. batches: see Constants.
    eager: the function is told that nothing is being compiled."""

    whole: bool
    written: frozenset[str] = frozenset()
    batches: bool = True
    eager: bool = False


def _traced(policy: Policy, module: _Inference, way: _Way) -> Program:
    lengths: list[int] = []
    constants, plain, changed, failure = Constants(lambda: bool(lengths), way.batches), [], frozenset(), None
    module.within = lambda: within_the_function(constants, way.eager)
    try:
        with torch.no_grad(), warnings.catch_warnings(), lines_of_all_functions(__file__), \
                without_dumps(), uncompiled_graphs():
            # warnings about torch 2.13's own code (deprecated LeafSpec, assigned attributes): no user can act on them
            warnings.simplefilter("ignore")
            with (traced(None if way.whole else lengths, noted_iteration), plain_tensors(module, way.written) as plain,
                  unchecked_distributions(), padded_with_zeros(), by_autograd(module), computed_at_once(constants)):
                constants.weights = tuple(dict(module.named_parameters(remove_duplicate=False)).values())
                # the exporter would merge two inputs whose example is the same tensor
                examples = tuple(t.clone() for t in policy.inputs.values())
                try:
                    exported = torch.export.export(module, examples, strict=False)
                finally:
                    changed = frozenset(p.name for p in plain if p.assigned or constants.is_modified(p.tensor))
                    constants.restore()
            if not changed:
                exported = functionalise(exported)
    except (CaptureError, SourceError):
        raise
    except Exception as error:  # noqa: BLE001  the exporter raises whatever the traced model raised
        failure = error
    if constants.mixed:
        return _traced(policy, module, replace(way, written=way.written | changed, batches=False))
    if changed:
        try:
            return _traced(policy, module, replace(way, written=way.written | changed))
        except CaptureError as error:
            if failure is not None or error.what != DECIDED_BY_DATA:
                raise
            raise _decided_by_state(policy, sorted(changed), error) from error
    if failure is not None:
        return _after_failure(policy, module, way, failure)
    program = to_program(policy, exported, {p.name: p.tensor for p in plain}, module.static)
    require_no_draws(program)
    require_decided_ends(program)
    notes = tuple(f'the assertion "{text}" about values of inputs is not checked on a robot'
                  for text in dict.fromkeys(constants.assertions))
    return replace(with_frames(program), iterations=dict(enumerate(lengths)), notes=notes)


def _after_failure(policy: Policy, module: _Inference, way: _Way, failure: Exception) -> Program:
    """Code that does something else while it is compiled may be traceable as it runs otherwise. Raises the CaptureError
    for `failure` if it is not."""
    if isinstance(failure, TypeError):
        check_call(policy.name, policy.observe, policy.arguments)
    reason = explain(policy.name, module, failure)
    if way.eager:
        raise reason from failure
    try:
        return _traced(policy, module, replace(way, eager=True))
    except CaptureError:
        raise reason from failure


def _decided_by_state(policy: Policy, changed: list[str], error: CaptureError) -> CaptureError:
    """changed: buffers that the function writes into. error: what is raised if their content is not a constant."""
    return CaptureError(
        f'the inference function keeps state: buffer "{changed[0]}" is read before this call writes it',
        where=error.where, why="what one call leaves in the buffer decides what the next one computes",
        fix=KEEP_NOTHING)
