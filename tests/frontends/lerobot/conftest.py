"""The fixture of this folder's tests."""

from tests.frontends.lerobot.small_checkpoint import checkpoint

__all__ = ["checkpoint"]
