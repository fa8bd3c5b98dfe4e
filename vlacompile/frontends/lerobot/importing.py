"""Imports LeRobot for its model code only, without the recording, hardware and dataset packages that it imports.

LeRobot pins an older PyTorch and imports a dozen packages that inference never calls. Inside the `with` block these
are stubs, which are removed afterwards so that no other library uses them. Its newest version is written for Python
3.12; type_parameters.py lets 3.11 read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.quiet import quiet
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed
from vlacompile.frontends.type_parameters import readable

# Packages that LeRobot imports and inference never calls.
NOT_CALLED = ("accelerate", "av", "datasets", "deepdiff", "gymnasium", "imageio", "jsonlines", "pandas", "pyarrow",
              "serial", "peft", "qwen_vl_utils", "torchdiffeq", "cv2")
# Of these, what LeRobot's dataset modules ask for; a plugin imports them for its training.
OF_DATASETS = ("av", "datasets", "jsonlines", "pandas", "pyarrow")
OF_WALL_X = ("torchdiffeq", "qwen_vl_utils")  # whose two functions wall_x.py gives


@contextlib.contextmanager
def lerobot_importable() -> Iterator[None]:
    """Within this context `import lerobot.policies...` works, and messages of LeRobot and transformers about training
    are
    suppressed. Raises SourceError if LeRobot is not installed, or in another version."""
    if not ENVIRONMENTS["lerobot"].is_here():
        ENVIRONMENTS["lerobot061"].require()
    declare_torchvision_ops()
    readable("lerobot")
    with stubbed(NOT_CALLED), quiet():
        _declare_stubs()
        yield


def _declare_stubs() -> None:
    """LeRobot since 0.6 asks for the metadata of a package before it imports it, and a stub has none."""
    from lerobot.utils import import_utils as own

    if hasattr(own, "_require_package_cache"):  # not of an earlier version
        own._require_package_cache.update(dict.fromkeys((*OF_DATASETS, *OF_WALL_X), True))
        own._wallx_deps_available = True  # asked when a class is defined
