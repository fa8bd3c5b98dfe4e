"""What no file of an Evo-1 checkpoint says: what its client sends and its server sets, and whether FlashAttention was
there."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.frontends.named_settings import choice, number, parse
from vlart.errors import ConfigError

OPTION = "--evo1-config"
KEYS = ("images", "attention", "steps")
ATTENTIONS, VIEWS = ("flash", "eager"), 3
SERVER_STEPS = 50  # whatever config.json says (scripts/Evo1_server.py)


@dataclass(frozen=True)
class Evo1Settings:
    """images: cameras, of VIEWS; the others are black. flash: whether tokens that are masked out got nothing of the
    others, as with FlashAttention, or something. steps: of denoising."""

    images: int
    flash: bool
    steps: int


def evo1_settings(text: str | None, where: str) -> Evo1Settings:
    """Raises ConfigError."""
    option = f"{OPTION} {text or ''}".rstrip()
    said = parse(text, OPTION, KEYS)[1] if text else {}
    missing = [k for k in ("images", "attention") if k not in said]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not given", where=where,
                          why="no file says how many cameras the robot has, and whether FlashAttention was installed, "
                              "with which the policy sees other padding", fix=f"add {OPTION} images=N,attention=flash")
    images = number(said["images"], "images", option)
    if images > VIEWS:
        raise ConfigError(f"images={images} is more than {VIEWS}", where=option, why="the model was made for that many",
                          fix=f"give images=1 to {VIEWS}")
    return Evo1Settings(images, choice(said["attention"], "attention", option, ATTENTIONS) == "flash",
                        number(said["steps"], "steps", option) if "steps" in said else SERVER_STEPS)
