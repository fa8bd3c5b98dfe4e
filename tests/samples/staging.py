"""Policies compiled as far as their stages."""

from __future__ import annotations

from vlacompile.hardware.target import Target
from vlacompile.phases.phase import Phase, Progress, silent
from vlacompile.phases.read_inputs import Inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.pipeline import until
from vlacompile.policy.policy import Policy
from vlacompile.recipe.recipe import Recipe


def verified(policy: Policy, target: Target, recipe: Recipe, progress: Progress = silent) -> Verified:
    """Its stages, and the golden frames on which they are the policy."""
    return until(Phase.VERIFY_STAGING, Inputs(policy, target, recipe), progress)
