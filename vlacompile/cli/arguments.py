"""Kinds of arguments that several verbs take."""

from __future__ import annotations

import argparse


UNCALIBRATED = "also a bundle whose int8 ranges come of generated observations, so that nobody has measured its error"
STAND_IN = "by ONNX Runtime: a stand-in, not the board"


def add_stand_in(parser) -> None:
    parser.add_argument("--stand-in", action="store_true",
                        help="run a board's stages (TensorRT) with ONNX Runtime instead: shows what they compute, "
                        "not how long the board takes")


def positive(text: str) -> int:
    return _whole(text, 1)


def thread_count(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number of at least {least}')
    return number
