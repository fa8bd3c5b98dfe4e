"""[precision] of a recipe, and what it may say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from vlacompile.hardware.target import Target
from vlacompile.recipe.quantisation_methods import BLOCKS, CALIBRATORS, ROUNDINGS, is_alpha, is_percentile
from vlacompile.recipe.unsupported_schemes import is_foreign, refusal
from vlart.errors import ConfigError, nearest
from vlart.vocabulary import SCHEMES

AUTO = "auto"  # instead of a scheme or an engine: the fastest that is right
BASES = ("fp32", "fp16")
MINIMISE = ("latency", "bytes")
DECIDE = ("block", "stage")
ROTATES = ("off", AUTO)


@dataclass(frozen=True)
class PrecisionRule:
    """layers: pattern ("*", "?", "[...]"; "*" also matches dots and slashes) of "<stage>/<path of a block or weight>"
    or of a weight's path alone. scheme: the precision of the matching layers, or "auto"."""

    layers: str
    scheme: str


@dataclass(frozen=True)
class PrecisionRecipe:
    """base: "fp32" or "fp16", for everything that is not a layer, and for layers that are small or next to the actions.
    layers: scheme of all other layers ("fp32", "fp16", "int8", "int4"), or "auto". rule: exceptions; the last match
    wins, and a rule that matches no layer is an error.
    optional: the policy may keep its precision; otherwise a scheme that is named (if "auto" chooses among several, none
        is) and cannot be applied to any layer is refused.
    schemes: those that "auto" chooses from, besides the base.
    max_action_error: error of the actions that all of it together may cause, in units of each action dimension's spread
        over the calibration set, of the worst dimension, after the whole loop; None: unlimited, except that fp16
        may cost as much as the integer layers do (at least 0.01), and nothing may be left to "auto".
    max_jerk: how many times as jerky as in fp32 a chunk may be: the root mean square of the third difference of its
        actions, of the worst dimension; None: unlimited.
    max_weight_mb (1e6 bytes), max_latency_ms (of a replan on average, by the target's rates): of all layers together;
        None: unlimited.
    minimise: "latency" or "bytes", the objective of "auto" within these limits. decide: the unit of its decisions, a
        "block" of layers or a "stage": every unit is tried in every scheme, which takes minutes for a large policy.
    observations: how many are generated for calibration if the policy has none.
    calibrator ("minmax", "percentile", "entropy", "mse"), percentile: how the range of activations is calibrated.
    smooth: alpha of SmoothQuant (arXiv:2211.10438, eq. 4), 0: off. correct_bias: subtract the mean shift of int8 layers
        from their bias.
    rotate: "off"; "auto": values that int8 and int4 layers read are rotated where that lowers the action error.
        rotate_seed: of the signs of the Hadamard matrices.
    int4_method ("rtn", "awq", "gptq"): rounding of 4-bit weights; block (32, 64, 128): weights that share a scale.
    fp16_values: values between stages are in fp16 where that changes no number."""

    base: str = "fp32"
    layers: str = "fp32"
    optional: bool = False
    schemes: tuple[str, ...] = ("fp16", "int8", "int4")
    max_action_error: float | None = None
    max_jerk: float | None = None
    max_weight_mb: float | None = None
    max_latency_ms: float | None = None
    minimise: str = "latency"
    decide: str = "block"
    observations: int = 8
    calibrator: str = "percentile"
    percentile: float = 99.99
    smooth: float = 0.0
    rotate: str = "off"
    rotate_seed: int = 0
    correct_bias: bool = True
    int4_method: str = "rtn"
    block: int = 32
    fp16_values: bool = True
    rule: tuple[PrecisionRule, ...] = field(default=())

    @property
    def rotates(self) -> bool:
        """Whether values may be rotated."""
        return self.rotate == AUTO

    @property
    def integers(self) -> tuple[str, ...]:
        """The integer schemes that a layer may get."""
        named = {self.layers, *(r.scheme for r in self.rule), *(self.schemes if self.automatic else ())}
        return tuple(s for s in ("int8", "int4") if s in named)

    @property
    def automatic(self) -> bool:
        """Whether any layer's scheme is left to the optimiser."""
        return AUTO in (self.layers, *(r.scheme for r in self.rule))

    @property
    def named(self) -> tuple[str, ...]:
        """Schemes requested for layers, besides the base. "auto" requests its scheme if it has only one to choose; with
        several it may choose none of them."""
        offered = tuple(s for s in dict.fromkeys(self.schemes) if s not in ("fp32", self.base))
        asked = {self.layers, *(r.scheme for r in self.rule)}
        found = [s for s in SCHEMES if s in asked] + (list(offered) if AUTO in asked and len(offered) == 1 else [])
        return tuple(s for s in dict.fromkeys(found) if s not in ("fp32", self.base))

    @property
    def reduced(self) -> bool:
        """Whether any layer may have less than fp32."""
        return {self.base, self.layers, *(r.scheme for r in self.rule)} != {"fp32"}


def refuse_foreign(p: PrecisionRecipe, where: str, target: Target | None) -> None:
    """Refuse schemes that exist elsewhere but are not supported here, with the reason."""
    named = [("base", p.base), ("layers", p.layers), *(("schemes", s) for s in p.schemes),
             *(("rule.scheme", r.scheme) for r in p.rule)]
    for key, scheme in named:
        if is_foreign(scheme):
            why, fix = refusal(scheme, target)
            on = f', target "{target.name}"' if target is not None else ""
            raise ConfigError(f'precision.{key}: "{scheme}" is not supported', where=f'recipe "{where}"{on}', why=why,
                              fix=fix)


def precision_checks(p: PrecisionRecipe) -> list[tuple[bool, str, str]]:
    def one_of(key: str, value: str, known: Iterable[str]) -> tuple[bool, str, str]:
        return value in known, f'precision.{key} = "{value}"', nearest(value, known)

    def positive(key: str) -> tuple[bool, str, str]:
        value = getattr(p, key)
        good = value is None or 0 < value < math.inf
        return good, f"precision.{key} = {value}", "a limit must be positive and finite"

    schemes = (AUTO, *SCHEMES)
    checks = [one_of("base", p.base, BASES), one_of("layers", p.layers, schemes),
              one_of("minimise", p.minimise, MINIMISE), one_of("decide", p.decide, DECIDE),
              one_of("calibrator", p.calibrator, CALIBRATORS),
              one_of("int4_method", p.int4_method, ROUNDINGS), one_of("rotate", p.rotate, ROTATES)]
    checks += [positive(key) for key in ("max_action_error", "max_weight_mb", "max_latency_ms")]
    checks += [(s in SCHEMES, f'precision.schemes has "{s}"', nearest(s, SCHEMES)) for s in p.schemes]
    for rule in p.rule:
        checks += [one_of("rule.scheme", rule.scheme, schemes),
                   (bool(rule.layers.strip()), f'precision.rule.layers = "{rule.layers}"', "the pattern is empty")]
    return checks + [
        (p.max_action_error is not None or not p.automatic, "precision.max_action_error is missing",
         f'"{AUTO}" chooses against a budget of action error'),
        (p.max_jerk is None or 1 < p.max_jerk < math.inf, f"precision.max_jerk = {p.max_jerk}",
         "it is a multiple of fp32's jerk, above 1"),
        (p.observations >= 2, f"precision.observations = {p.observations}",
         "a spread needs at least two observations"),
        (is_percentile(p.percentile), f"precision.percentile = {p.percentile}", "it must be above 50 and at most 100"),
        (not p.rotates or bool(p.integers), f'precision.rotate = "{p.rotate}"',
         "it is for layers in int8 or int4, and no layer may have these"),
        (p.rotate_seed >= 0, f"precision.rotate_seed = {p.rotate_seed}", "a seed is a whole number, 0 or more"),
        (is_alpha(p.smooth), f"precision.smooth = {p.smooth}", "it must be between 0 (off) and 1"),
        (p.block in BLOCKS, f"precision.block = {p.block}", f"known: {', '.join(map(str, BLOCKS))}"),
    ]
