"""Phase 4: verifies on golden frames, before anything is emitted, that the stages compute the policy's function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlacompile.compiler.emit.onnx.translatable import require_translatable
from vlacompile.compiler.golden import golden
from vlacompile.compiler.staging.ends_near import ends_near
from vlacompile.phases.capture import capture
from vlacompile.phases.find_stages import Staging, find_stages
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlart.errors import ParityError
from vlart.verify.frames import Frame
from vlart.verify.metrics import Metrics


@dataclass(frozen=True)
class Verified:
    """staging: the stages that were verified. frames: inputs, the policy's outputs, and every value between stages.
    parity: {output: distance of the staged graph from the original function}, the worst over all frames. notes: ends of
    loops that rounding decides on these frames."""

    staging: Staging
    frames: tuple[Frame, ...]
    parity: Mapping[str, Metrics]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The golden frames, and the distance of the staged graph from the original function."""
        frames = [f'frame "{f.label}": {len(f.writes)} inputs, {len(f.expects)} values' for f in self.frames]
        parity = [f'parity "{name}": max_abs {m.max_abs:.3g}, rel_l2 {m.rel_l2:.3g}, cosine {m.cosine:.9f}'
                  for name, m in self.parity.items()]
        return "\n".join([*frames, *parity, *self.notes]) + "\n"


@phase(Phase.VERIFY_STAGING)
def verify_staging(inputs: Inputs, staging: Staging, *, progress: Progress) -> Verified:
    """If later iterations of a loop do not follow from the traced ones, all iterations are traced and staged again.
    Raises EmitError for an op that no engine has, ParityError if the stages compute another function."""
    shortened = bool(staging.program.iterations)
    require_translatable(staging.staged)
    if shortened and not staging.complete:
        return _whole(inputs, progress)
    progress("compare with the policy on golden frames")
    spoken = inputs.spoken if inputs.only_spoken else ()
    try:
        frames, parity = golden(staging.policy(inputs.policy), staging.staged, staging.written, inputs.recipe.verify,
                                spoken, staging.program, recorded=bool(inputs.dataset))
    except ParityError:
        if not shortened:
            raise
        return _whole(inputs, progress)
    return Verified(staging, tuple(frames), parity, ends_near(staging.staged, frames))


def _whole(inputs: Inputs, progress: Progress) -> Verified:
    captured = capture(inputs, whole=True, progress=progress)
    return verify_staging(inputs, find_stages(inputs, captured, progress=progress), progress=progress)
