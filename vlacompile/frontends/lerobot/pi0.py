"""pi0 (Black et al. 2024, arXiv 2410.24164): flow matching beside a PaliGemma prefix, ten Euler steps from t=1 to 0."""

from __future__ import annotations

from vlacompile.frontends.lerobot import old_pi0, openpi
from vlacompile.frontends.lerobot.read import Family

FAMILY = Family("lerobot.policies.pi0.modeling_pi0", "PI0Policy", openpi.bind, ready=openpi.ready, make=openpi.make,
                weights=openpi.weights, read_as=openpi.read_as, noise=openpi.noise,
                settings=openpi.settings, tokenizer_of_old=old_pi0.tokenizer,
                newline_steps=frozenset({"pi0_new_line_processor"}))
