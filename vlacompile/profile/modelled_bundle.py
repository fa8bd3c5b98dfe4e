"""Models a bundle on boards: as it was built, and with one parameter changed. Nothing is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vlacompile.hardware.target import load_target, modes_of
from vlacompile.profile.kernel_work import work_of
from vlacompile.profile.published import bands
from vlacompile.profile.roofline import WhatIf, camera_count, model
from vlart.bundle.directory import Bundle
from vlart.bundle.plan.plan import Plan
from vlart.vocabulary import SCHEMES


def modelled_for(bundle: Bundle, target_names: Sequence[str], question: WhatIf) -> dict:
    """boards: the results, one per target; else: {description: result with one change} on the first target; bands:
    error
    bands; targets, question: the request. Raises ConfigError for a target that does not exist."""
    work = work_of(bundle)
    targets = [load_target(t) for t in target_names]
    boards = [model(bundle.plan, work, t, question) for t in targets]
    first, otherwise = targets[0], {}
    if question.precision is None:
        schemes = [s for s in SCHEMES if first.rates is not None and getattr(first.rates, s) is not None]
        otherwise |= {f"all {s}": model(bundle.plan, work, first, replace(question, precision=s)) for s in schemes}
    if first.board is not None:
        name, _, software = first.name.partition("@")
        software = software.partition("+")[2]
        for mode in modes_of(name):
            if mode.name != first.power.name:
                other = load_target(f"{name}@{mode.name}+{software}")
                otherwise[f"mode {mode.name}"] = model(bundle.plan, work, other, question)
    otherwise |= {words: model(bundle.plan, work, first, q) for words, q in _neighbours(bundle.plan, question)}
    return {"boards": boards, "else": otherwise, "bands": bands(), "targets": targets, "question": question}


def _neighbours(plan: Plan, question: WhatIf) -> Iterator[tuple[str, WhatIf]]:
    """(description, question) of variants of the request: half the loop steps, one camera more, another h."""
    steps = max((s.iterations for s in plan.stages), default=1)
    if question.iterations is None and steps > 1:
        yield f"K = {max(1, steps // 2)} iterations", replace(question, iterations=max(1, steps // 2))
    if question.cameras is None and (cameras := camera_count(plan)):
        for count in (cameras - 1, cameras + 1):
            if count:
                yield f"{count} camera{'s' if count > 1 else ''}", replace(question, cameras=count)
    if question.execute is None and plan.action is not None:
        h, most = plan.action.execute_steps, plan.action.chunk_steps
        for other in sorted({max(1, h // 2), min(most, 2 * h), most} - {h}):
            yield f"h = {other} of {most} actions", replace(question, execute=other)
