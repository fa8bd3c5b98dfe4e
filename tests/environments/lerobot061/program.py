"""Runs one of LeRobot's own programs in the environment lerobot061, where packages that it imports and does not need
here are missing: `python -m tests.environments.lerobot061.program lerobot_rollout --policy.type=...`.
"""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from unittest import mock

from vlacompile.frontends.lerobot import importing

NOT_CALLED = ("cv2", "pyrealsense2", "imageio", "rerun", "pynput", "matplotlib")  # cameras, keyboards, pictures


def main(name: str) -> None:
    names = (*importing.NOT_CALLED, *NOT_CALLED)
    with mock.patch.object(importing, "NOT_CALLED", names), importing.lerobot_importable():
        import av
        from lerobot.utils import import_utils

        if not hasattr(av, "option"):  # newer than the PyAV that LeRobot asks for
            av.option = SimpleNamespace(Option=None)
        import_utils.require_package = lambda *_, **__: None  # asks for datasets, which only recording needs
        importlib.import_module(f"lerobot.scripts.{name}").main()


if __name__ == "__main__":
    main(sys.argv.pop(1))
