"""Compares the precision that a recipe asked for with what was applied, for people and for programs.

Owns the error if nothing was applied, and the facts in the manifest (bundle/precision_record.py reads them). Must not
know how anything is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from vlacompile.compiler.precision.assign.choices_made import Changed
from vlacompile.compiler.precision.assign.choose_rotations import Rotations
from vlacompile.compiler.precision.assign.decision import Assignment
from vlacompile.compiler.precision.quantise.insert_quantised_ops import is_static
from vlacompile.compiler.precision.quantise.layers import Layer
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlart.errors import BudgetError, PrecisionError, VlaError

MOST = 3  # reasons, or blocks, that are listed


@dataclass(frozen=True)
class Carried:
    """How much of a scheme was applied. of, of_bytes: number of all `what`, and bytes of their weights in fp32; number,
    bytes: those that use the scheme. why: the reason why the others do not."""

    scheme: str
    what: str
    number: int
    of: int
    bytes: int
    of_bytes: int
    why: str = ""

    @property
    def line(self) -> str:
        return (f"{self.scheme}: {self.number} of {self.of} {self.what}, {_mb(self.bytes)} of {_mb(self.of_bytes)} MB"
                + (f"; {self.why}" if self.why and self.number < self.of else ""))


def missing(assignment: Assignment, recipe: PrecisionRecipe) -> tuple[str, ...]:
    """Schemes that the recipe names and that no layer uses."""
    found = {d.scheme for d in assignment.decisions}
    return tuple(s for s in recipe.named if s not in found)


def carried_out(assignment: Assignment, layers: Sequence[Layer], recipe: PrecisionRecipe, measured: bool) \
        -> tuple[Carried, ...]:
    """One row per scheme that was asked for or chosen; and one for "auto" itself if it can choose between several
    schemes."""
    chosen = assignment.schemes
    found = {d.scheme for d in assignment.decisions if d.scheme not in ("fp32", recipe.base)}
    rows = []
    if recipe.automatic and assignment.tried and len({s for _, s, _ in assignment.tried}) > 1:
        mine = [x for x in layers if chosen[x.stage][x.node] not in ("fp32", recipe.base)]
        why = "" if mine else "no other layer gains within the allowed error"
        rows.append(Carried("auto", "layers", len(mine), len(layers), _bytes(mine), _bytes(layers), why))
    for scheme in dict.fromkeys((*recipe.named, *sorted(found))):
        mine = [x for x in layers if chosen[x.stage][x.node] == scheme]
        rows.append(Carried(scheme, "layers", len(mine), len(layers), _bytes(mine), _bytes(layers),
                            _why(assignment, scheme, measured)))
    return tuple(rows)


def _why(assignment: Assignment, scheme: str, measured: bool) -> str:
    """Why the other layers do not use the scheme: their error alone, or the kind of layer."""
    over = sorted(((e, block) for block, tried, e in assignment.tried if tried == scheme
                   and block not in _in(assignment, scheme)))
    words = []
    if over and measured:
        words += [f"{block} would cost {e:.3g}, allowed {assignment.budget:g}" for e, block in over[:1]]
        words += [f"{len(over) - 1} more would cost at least as much"] if len(over) > 1 else []
    elif over:
        words += [f"{len(over)} block{'s' * (len(over) > 1)} would cost too much, by an error that is not measured"]
    reasons: dict[str, int] = {}
    for d in assignment.decisions:
        if d.scheme != scheme and d.why:
            reasons[d.why] = reasons.get(d.why, 0) + len(d.nodes)
    words += [f"{n}: {why}" for why, n in list(reasons.items())[:MOST]]
    return "; ".join(words)


def _in(assignment: Assignment, scheme: str) -> set[str]:
    return {d.group for d in assignment.decisions if d.scheme == scheme}


def require_carried_out(rows: Sequence[Carried], assignment: Assignment, recipe: PrecisionRecipe, policy: str,
                        recorded: bool) -> None:
    """Raises BudgetError or PrecisionError for a scheme that the recipe names but nothing uses."""
    nothing = [r for r in rows if not r.number and (r.scheme in recipe.named or r.scheme == recipe.base)]
    if nothing and not recipe.optional:
        raise _refusal(nothing[0], assignment, recipe, policy, recorded)


def _refusal(row: Carried, assignment: Assignment, recipe: PrecisionRecipe, policy: str, recorded: bool) -> VlaError:
    what = f"{row.scheme} is applied nowhere: 0 of {row.of} {row.what}, 0 of {_mb(row.of_bytes)} MB"
    where, leave = f'policy "{policy}", recipe [precision]', "optional = true, if the policy may stay as it is"
    costs = sorted((e, block) for block, scheme, e in assignment.tried if scheme == row.scheme)
    if not costs:
        return PrecisionError(what, where=where, why=row.why or (
            "no layer with a weight of its own gains by it" if row.of
            else "the policy has no layers with weights of their own"),
            fix=f"choose another recipe, or {leave}")
    least, _block = costs[0]
    seen = "" if recorded else ", on generated observations"
    told = "; ".join(f"{b} alone costs {e:.3g}" for e, b in costs[:MOST])
    return BudgetError(what, where=where, why=f"{told}{seen}; allowed {recipe.max_action_error:g}",
                       fix=f"allow max_action_error = {least * 1.05:.2g}, or {leave}",
                       reachable={"max_action_error": least})


def static_layers(assignment: Assignment, layers: Sequence[Layer], dialect: str) -> int:
    """Number of layers that read 8-bit values with ranges fixed at compile time."""
    chosen = assignment.schemes
    return sum(is_static(x.kind, chosen[x.stage][x.node], dialect) for x in layers)


def facts(rows: Sequence[Carried], *, recorded: int, generated: int, static: Mapping[str, int], dialect: str,
          errors: tuple[float, float | None], spread: Sequence[float], simulated: Mapping[str, float],
          budget: float | None, jerks: tuple[float | None, float | None], max_jerk: float | None,
          choices: tuple[Changed | None, Changed | None] = (None, None), rotations: Sequence[Rotations] = ()) -> dict:
    """The facts for the manifest. static: {dialect: number of static_layers}. An error in which static ranges play a
    part is a number only if recorded observations were used, otherwise null. spread: what errors of each
    action dimension count in. simulated: {dialect: error of the quantised layers}. jerks: of chunks, times that of
    fp32, where errors says the errors; None: they have none. choices: on the same observations, how many fall on
    another score; None: nothing is chosen. rotations: one per stage of which something could be rotated."""
    real = {d: bool(recorded) or not n for d, n in static.items()}
    return {
        "carried_out": [asdict(r) | {"line": r.line} for r in rows],
        "recorded_observations": recorded, "generated_observations": generated,
        "static_int8_layers": static[dialect], "uncalibrated": not real[dialect], "max_action_error": budget,
        "action_error": errors[0] if real[dialect] else None, "held_out_error": errors[1] if real[dialect] else None,
        "action_spread": list(spread) if real[dialect] else None,
        "simulated": {d: e if real[d] else None for d, e in simulated.items()}, "max_jerk": max_jerk,
        "jerk": jerks[0] if real[dialect] else None, "held_out_jerk": jerks[1] if real[dialect] else None,
        "rotations": [r.facts(real[dialect]) for r in rotations],
        "choices": None if choices[0] is None or not real[dialect] else asdict(choices[0]),
        "held_out_choices": None if choices[1] is None or not real[dialect] else asdict(choices[1]),
    }


def _bytes(layers: Sequence[Layer]) -> int:
    """Bytes in fp32; a weight that several layers read counts once."""
    return sum({(x.stage, x.weight): 4 * x.weights for x in layers}.values())


def _mb(size: int) -> str:
    return f"{size / 1e6:.3g}" if size else "0"
