"""Phase 8: writes the bundle to a temporary place, replays it through libvlart, and renames it to its destination."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vlacompile.compiler.staging.known_instructions import accept_instructions
from vlacompile.phases.assemble import Assembled
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.phases.read_inputs import Inputs
from vlart.bundle.directory import Bundle, write_bundle
from vlart.errors import RuntimeFailure
from vlart.verify.frames import Frame, frames_bytes
from vlart.verify.metrics import Metrics
from vlart.verify.replay import replay
from vlart.verify.tolerances import tolerance
from vlart.verify.trial import try_bundle
from vlart.vocabulary import dtype_name


@phase(Phase.PUBLISH)
def publish(inputs: Inputs, assembled: Assembled, *, progress: Progress) -> Bundle:
    """Raises ParityError if libvlart's results differ from the golden frames, BundleError if the bundle cannot be
    written; no partial bundle is left behind."""
    progress("replay it through libvlart")
    provenance = dict(assembled.provenance)

    def accept(path: Path):
        return _accept(path, inputs, assembled)

    if assembled.local is None:
        return write_bundle(inputs.out, assembled.plan, assembled.contents, provenance, accept)
    with tempfile.TemporaryDirectory() as folder:
        report = write_bundle(Path(folder) / "local.vlab", *assembled.local, provenance, accept).accepted
    return write_bundle(inputs.out, assembled.plan, assembled.contents, provenance, lambda path: report)


def _require_no_crash(path: Path, frame: Frame, inputs: Inputs, stand_in: bool) -> None:
    """An engine that crashes takes the process with it: the first frame runs in another one. Raises RuntimeFailure."""
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.bin"
        first.write_bytes(frames_bytes([frame]))
        try:
            try_bundle(path, stand_in=stand_in, native_code=True, frames=first)
        except RuntimeFailure as failure:
            if "crash" not in failure.what:  # any other the replay itself tells, or expects
                return
            raise RuntimeFailure(failure.what, where=f"{inputs.out.name}, before the first frame has ended",
                                 why=failure.why, status=failure.status,
                                 fix="the bundle was not written: report it with this policy; another engine or "
                                     "precision of its stages may pass") from failure


def _accept(path: Path, inputs: Inputs, assembled: Assembled):
    """The parity report of the written bundle, within all limits. Raises ParityError."""
    frames, stand_in = list(assembled.frames), inputs.target.board is not None
    _require_no_crash(path, frames[0], inputs, stand_in)
    report = replay(path, frames, inputs.policy.outputs, stand_in=stand_in, native_code=True)  # which it just compiled
    report.require(building=inputs.out.name)

    def limit_of(name: str, want) -> Metrics:
        recorded = frames[0].expects.get(name)
        return tolerance(dtype_name(want.dtype.str), "stage").limit(want) if recorded is None else recorded.limit

    accept_instructions(path, assembled.known, frames[0], limit_of, stand_in, native_code=True)
    return report
