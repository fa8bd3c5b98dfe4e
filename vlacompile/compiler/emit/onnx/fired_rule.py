"""What a rule of emission did to a stage: for `inspect` and the manifest of a bundle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FiredRule:
    """rule: the recipe's key that turns it off. count: how often it fired in the stage. worth: what a board gained by
    it, from a log that others published, or what the model says; empty: neither says anything. What the model prices of
    one run, in fp16: bytes that are written and read less, and operations of convolutions that products of matrices do
    instead."""

    rule: str
    count: int
    worth: str = ""
    bytes: int = 0
    conv_operations: int = 0
