"""What no file of an openpi checkpoint says: facts of openpi's training configurations, and how a person differs.

The table holds facts of src/openpi/training/config.py and misc/polaris_config.py at 15a9616, for the configurations of
pi0 and pi0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.named_settings import FLAGS, MOST_EVALUATIONS, choice, number, parse, row_of
from vlacompile.frontends.openpi.robots import ALOHA, ROBOTS, Robot
from vlart.errors import ConfigError, SourceError

OPTION = "--openpi-config"
STEPS = 10  # a default of the code, sample_actions(num_steps=10), not of a configuration
OWN = "own"  # a robot that openpi has no policy of
SLOTS = 3  # images of the model
KEYS = ("robot", "horizon", "prompt_tokens", "norms", "delta", "state", "adapt_to_pi", "cameras", "asset", "steps",
        "state_dim", "action_dim")

_PI0 = {"kind": "pi0", "prompt_tokens": "48", "norms": "mean_std", "state": "input", "horizon": "50"}
_PI05 = {"kind": "pi05", "prompt_tokens": "200", "norms": "quantile", "state": "prompt", "horizon": "50"}
_ALOHA = {"robot": ALOHA, "asset": "trossen", "delta": "joints", "adapt_to_pi": "yes"}
_DROID = {"robot": "droid", "asset": "droid", "delta": "none"}
_POLARIS = {"horizon": "10", "delta": "joints", "prompt_tokens": "100"}
_LIBERO = {"robot": "libero", "asset": "physical-intelligence/libero"}
CONFIGS: dict[str, dict[str, str]] = {
    "pi0_aloha": _PI0 | _ALOHA, "pi05_aloha": _PI05 | _ALOHA, "pi0_aloha_towel": _PI0 | _ALOHA,
    "pi0_aloha_tupperware": _PI0 | _ALOHA, "pi0_aloha_pen_uncap": _PI0 | _ALOHA, "pi05_aloha_pen_uncap": _PI05 | _ALOHA,
    "pi0_aloha_sim": _PI0 | _ALOHA | {"asset": "lerobot/aloha_sim_transfer_cube_human", "delta": "none",
                                      "cameras": "cam_high"},
    "pi0_droid": _PI0 | _DROID | {"horizon": "10"}, "pi05_droid": _PI05 | _DROID | {"horizon": "15"},
    "pi05_full_droid_finetune": _PI05 | _DROID | {"horizon": "16", "delta": "joints"},
    "pi05_droid_finetune": _PI05 | _DROID | {"horizon": "16"},
    "pi05_droid_jointpos_polaris": _PI05 | _DROID | {"horizon": "15", "delta": "joints"},
    "pi0_droid_jointpos_polaris": _PI0 | _DROID | _POLARIS, "pi0_droid_jointpos_100k_polaris": _PI0 | _DROID | _POLARIS,
    "pi0_libero": _PI0 | _LIBERO | {"delta": "joints"},
    "pi05_libero": _PI05 | _LIBERO | {"delta": "none", "horizon": "10", "state": "none"},
}


@dataclass(frozen=True)
class Settings:
    """cameras: (place among the model's images, the robot's name) of those that the policy sees. horizon: actions of a
    chunk. prompt_tokens: length of the padded prompt. quantiles: whether statistics map the
    range of the 1st to 99th percentile to [-1, 1] instead of using mean and deviation. offsets: for each action,
    whether it is an offset to the state. state: "input", "prompt", or "none". internal: ALOHA's joints in openpi's
    convention. asset: the data set of the statistics, or None: the only one."""

    robot: Robot
    cameras: tuple[tuple[int, str], ...]
    horizon: int
    prompt_tokens: int
    quantiles: bool
    offsets: tuple[bool, ...]
    state: str
    internal: bool
    asset: str | None
    steps: int


def settings_of(kind: str | None, options: CheckpointOptions, where: str, known: dict[str, str]) -> Settings:
    """kind: "pi0" or "pi05", as the weights show; None: they are not there yet. known: what files of the checkpoint
    say. Raises SourceError for what is asked and not given, ConfigError for what is not known."""
    if options.openpi_config is None:
        names = ", ".join(n for n, row in CONFIGS.items() if kind in (None, row["kind"]))
        raise SourceError("the checkpoint does not say how it was trained", where=where,
                          why="openpi keeps robot, chunk, prompt and normalisation in its code",
                          fix=f"add {OPTION} NAME, with the name of its training configuration, one of {names}; or "
                              "key=value")
    option = f"{OPTION} {options.openpi_config}"
    name, said = parse(options.openpi_config, OPTION, KEYS)
    row = {} if name is None else row_of(name, CONFIGS, OPTION)
    kind = kind or row.get("kind") or ("pi0" if said.get("state") == "input" else "pi05")
    if row and row["kind"] != kind:
        raise SourceError(f"{name} is a configuration of {row['kind']}", where=where,
                          why=f"the weights are those of {kind}", fix=f"give {OPTION} of the training that wrote them")
    if said.get("robot", row.get("robot")) != row.get("robot"):  # what follows from the robot is asked again
        row = {k: v for k, v in row.items() if k not in ("delta", "adapt_to_pi", "cameras", "asset")}
    differs = [k for k, v in known.items() if (row | said).get(k, v) != v]
    if differs:
        raise SourceError(f"{differs[0]} is {(row | said)[differs[0]]} in {option}", where=where,
                          why=f"the checkpoint's config.json says {known[differs[0]]}",
                          fix=f"give the configuration that it was trained with, or {differs[0]}={known[differs[0]]}")
    return _settings(kind, row | known | said, option)


def _settings(kind: str, row: dict[str, str], option: str) -> Settings:
    needed = ["robot", "horizon", "prompt_tokens", "norms", "delta", "state"]
    needed += {ALOHA: ["adapt_to_pi"], OWN: ["cameras", "state_dim", "action_dim"]}.get(row.get("robot", ""), [])
    missing = [k for k in needed if k not in row]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not given", where=option, why="the checkpoint does not say it",
                          fix=f"give a name of openpi's table, or add {','.join(f'{k}=...' for k in missing)}")
    if "adapt_to_pi" in row and row["robot"] != ALOHA:
        raise ConfigError(f"adapt_to_pi is given for {row['robot']}", where=option,
                          why=f"openpi has a convention of joints of its own for {ALOHA} alone",
                          fix="leave adapt_to_pi out")
    state = choice(row["state"], "state", option, ("input",) if kind == "pi0" else ("prompt", "none"))
    robot = _robot(row, option)
    names = row["cameras"].split(":") if "cameras" in row else robot.cameras
    cameras = tuple((robot.cameras.index(n), n) for n in names)
    return Settings(robot, cameras, number(row["horizon"], "horizon", option),
                    number(row["prompt_tokens"], "prompt_tokens", option),
                    choice(row["norms"], "norms", option, ("quantile", "mean_std")) == "quantile",
                    _offsets(row["delta"], robot, option), state,
                    row["robot"] == ALOHA and FLAGS[choice(row["adapt_to_pi"], "adapt_to_pi", option, tuple(FLAGS))],
                    row.get("asset"), number(row.get("steps", str(STEPS)), "steps", option, MOST_EVALUATIONS))


def _robot(row: dict[str, str], option: str) -> Robot:
    name = choice(row["robot"], "robot", option, (*ROBOTS, OWN))
    cameras = tuple(row["cameras"].split(":")) if "cameras" in row else ()
    if name == OWN:
        sizes = [number(row[k], k, option) for k in ("state_dim", "action_dim")]
        robot = Robot(cameras, sizes[0], sizes[1], (True,) * sizes[1])
    else:
        robot = ROBOTS[name]
        for key in ("state_dim", "action_dim"):
            if key in row:
                raise ConfigError(f"{key} is given for {name}", where=option, why="its size is openpi's",
                                  fix=f"give robot={OWN} for another robot")
        if any(c not in robot.cameras for c in cameras) or (cameras and cameras[0] != robot.cameras[0]):
            raise ConfigError(f"cameras={row['cameras']} are not those of {name}", where=option,
                              why=f"openpi knows {', '.join(robot.cameras)}, of which the first is always there",
                              fix=f"give cameras={':'.join(robot.cameras)} or fewer")
    if len(cameras) != len(set(cameras)) or len(cameras or robot.cameras) > SLOTS:
        raise ConfigError(f"cameras={row['cameras']} does not fit the model", where=option,
                          why=f"it has {SLOTS} images: base, left wrist, right wrist", fix="name each camera once")
    return robot


def _offsets(text: str, robot: Robot, option: str) -> tuple[bool, ...]:
    """"none", "joints" (all but grippers), or openpi's make_bool_mask: 6:-1 for six offsets and one absolute."""
    if text == "none":
        return (False,) * robot.action
    if text == "joints":
        return robot.joints
    counts = text.split(":")
    if not all(c.lstrip("-").isdecimal() and int(c) for c in counts) or sum(abs(int(c)) for c in counts) > robot.action:
        raise ConfigError(f"delta={text} does not fit {robot.action} actions", where=option,
                          why="it counts offsets, and with a minus absolute actions",
                          fix="give delta=none, delta=joints, or counts as 6:-1")
    mask = [int(c) > 0 for c in counts for _ in range(abs(int(c)))]
    return (*mask, *[False] * (robot.action - len(mask)))
