"""What a person spells out about a checkpoint because its files do not say it. Stored in the manifest.

An option is a field here; the command line has it by its flag, and the frontends that take it name it.
"""

from __future__ import annotations

import shlex
from dataclasses import Field, dataclass, field, fields
from typing import Any

from vlart.errors import SourceError


def _said(of: str, text: str, metavar: str | None = None, flag: str | None = None) -> Any:
    """of: the checkpoints that have it. text: its help. metavar: of its value; None: a switch."""
    return field(default=None if metavar else False, metadata={"of": of, "help": text, "metavar": metavar,
                                                               "flag": flag})


@dataclass(frozen=True)
class CheckpointOptions:
    """lerobot, transformers: the versions whose code trained it, or None: read from the files. raw_actions: its
    actions are in robot units although nothing un-normalises them. raw_observations: it was trained on observations
    as the robot gives them although nothing normalises them. openpi_config, oft_config: a name of that repository's
    table, then key=value, separated by commas. evo1_config,
    xvla_config: key=value, separated by commas. unnorm_key: of statistics of several datasets, the robot's.
    tokenizer: a tokenizer.json, or a directory or name on the Hub with one. instruction: the only one that the policy
    will be used with, a constant of the compiled policy; None: its tokens are inputs. embodiment: the robot, of a
    policy for several. frame: sizes of the cameras' frames. letterbox: whether frames that are no squares get black
    bars. modality: a file that says which numbers a policy takes and
    gives. weights: trained weights of a system of the zoo."""

    lerobot: str | None = _said("LeRobot", "the LeRobot that trained the checkpoint, where its files do not say it",
                                "VERSION")
    transformers: str | None = _said("LeRobot", "the transformers that it was trained with; no file says it",
                                     "VERSION")
    raw_actions: bool = _said("LeRobot", "the checkpoint un-normalises no actions, and was trained on actions in robot "
                              "units", flag="--assume-raw-actions")
    raw_observations: bool = _said("LeRobot", "the checkpoint normalises no observations, and was trained on them as "
                                   "the robot gives them", flag="--assume-raw-observations")
    openpi_config: str | None = _said("openpi", "what no file of an openpi checkpoint says: the name of its training "
                                      "configuration, key=value to differ from it, separated by commas",
                                      "NAME[,KEY=VALUE]")
    oft_config: str | None = _said("OpenVLA-OFT", "what no file of an OpenVLA-OFT checkpoint says: its platform, and "
                                   "the number of cameras", "PLATFORM,images=N")
    evo1_config: str | None = _said("Evo-1", "what no file of an Evo-1 checkpoint says: the number of cameras, and "
                                    "whether FlashAttention was installed; steps=N of denoising, if not the server's",
                                    "images=N,attention=flash|eager")
    xvla_config: str | None = _said("X-VLA", "what no file of an X-VLA checkpoint says: the number of the "
                                    "robot, and of its cameras; steps=N of denoising, if not the server's",
                                    "domain=N,images=N")
    unnorm_key: str | None = _said("OpenVLA or Evo-1", "the dataset whose statistics un-normalise the actions, if the "
                                   "checkpoint has those of several", "KEY")
    tokenizer: str | None = _said("openpi or Evo-1", "a tokenizer.json, or a directory or name on the Hub with one, "
                                  "for a checkpoint without it", "PATH")
    instruction: str | None = _said("LeRobot", "the one instruction that the policy will follow: a constant, for a "
                                    "policy type whose code does not allow its tokens to be an input", "TEXT")
    embodiment: str | None = _said("GR00T", "the robot, of a checkpoint for several", "TAG")
    frame: str | None = _said("GR00T", "height and width of the cameras' frames, of all or of each, separated by "
                              "commas, where no file says it", "[CAMERA=]HxW")
    letterbox: str | None = _said("GR00T N1.6", "whether the code that trained it gives frames black bars to make them "
                                  "squares, where no file says it", "yes|no")
    modality: str | None = _said("GR00T", "a JSON file with the cameras and numbers that a policy takes, in which "
                                 "order and how normalised, where no file of the checkpoint says it", "FILE")
    weights: str | None = _said("the zoo", "trained weights of a system of the zoo: a .safetensors file, a directory "
                                "of them, or a file of torch.save", "PATH")

    def spelled_out(self) -> tuple[str, ...]:
        """The options that were given, as on the command line."""
        values = [(flag_of(f), getattr(self, f.name)) for f in fields(self)]
        return tuple(flag if value is True else f"{flag} {shlex.quote(value)}" for flag, value in values if value)

    def require_only(self, source: str, *taken: str) -> None:
        """Raises SourceError if another one than these fields was given: one that this source does not have."""
        for f in fields(self):
            if getattr(self, f.name) and f.name not in taken:
                raise SourceError(f"{flag_of(f)} does not apply to this source", where=source,
                                  why=f"it says how the files of a checkpoint of {f.metadata['of']} are to be read",
                                  fix=f"build without {flag_of(f)}")

    def require_none(self, source: str) -> None:
        """Raises SourceError if one was given for a source whose files say all of it."""
        self.require_only(source)


def flag_of(of: Field) -> str:
    return of.metadata["flag"] or "--" + of.name.replace("_", "-")


NONE = CheckpointOptions()
OF_LEROBOT = ("lerobot", "transformers", "raw_actions", "raw_observations", "instruction")
