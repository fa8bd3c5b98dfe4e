"""Kinds of arguments that several verbs take."""

from __future__ import annotations

import argparse

from vlacompile.vocabulary import SCHEMES

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


def add_what_if(parser) -> None:
    parser.add_argument("--target", "-t", action="append", default=[], metavar="T",
                        help="a board and mode, as orin-nano-8gb@15w; may be repeated")
    parser.add_argument("--precision", choices=SCHEMES, help="of all layers, instead of what was built")
    parser.add_argument("--iterations", type=positive, metavar="K",
                        help="of denoising loops, instead of what was built")
    parser.add_argument("--cameras", type=positive, metavar="N",
                        help="instead of what was built; stages that read several images are not changed")
    parser.add_argument("--execute", type=positive, metavar="H",
                        help="actions that are executed per chunk, instead of what was built")


def what_if(args):
    """The question that add_what_if's arguments ask."""
    from vlacompile.profile.roofline import WhatIf

    return WhatIf(args.precision, args.iterations, args.cameras, args.execute)
