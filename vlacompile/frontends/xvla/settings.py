"""What no file of an X-VLA checkpoint says: what a client sends with every observation."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.frontends.named_settings import number, parse
from vlart.errors import ConfigError

OPTION = "--xvla-config"
KEYS = ("domain", "images", "steps")
VIEWS, CLIENT_STEPS = 3, 10  # XVLAProcessor.num_views; of the server, if a client does not say


@dataclass(frozen=True)
class XvlaSettings:
    """domain: number of the robot. images: cameras, of VIEWS. steps: of denoising."""

    domain: int
    images: int
    steps: int


def xvla_settings(text: str | None, domains: int, where: str) -> XvlaSettings:
    """domains: how many robots the weights are for. Raises ConfigError."""
    option = f"{OPTION} {text or ''}".rstrip()
    said = parse(text, OPTION, KEYS)[1] if text else {}
    missing = [k for k in ("domain", "images") if k not in said]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not given", where=where,
                          why="no file says which robot's weights these are, of several, and how many cameras it has",
                          fix=f"add {OPTION} domain=N,images=N; the table of domains is in the authors' "
                              "datasets/domain_config.py")
    domain = 0 if said["domain"] == "0" else number(said["domain"], "domain", option)
    if domain >= domains:
        raise ConfigError(f"domain={domain} has no weights", where=option, why=f"the model has {domains}",
                          fix=f"give domain=0 to {domains - 1}")
    images = number(said["images"], "images", option)
    if images > VIEWS:
        raise ConfigError(f"images={images} is more than {VIEWS}", where=option, why="the processor takes that many",
                          fix=f"give images=1 to {VIEWS}")
    return XvlaSettings(domain, images, number(said["steps"], "steps", option) if "steps" in said else CLIENT_STEPS)
