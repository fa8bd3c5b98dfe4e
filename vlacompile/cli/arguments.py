"""Arguments and argument types that several verbs share."""

from __future__ import annotations

import argparse

from vlacompile.vocabulary import SCHEMES

UNCALIBRATED = ("accept a bundle whose INT8 ranges were calibrated on generated observations, so that its "
                "quantisation error on real ones is unknown")
STAND_IN = "by ONNX Runtime: a stand-in, not the board"


def add_stand_in(parser) -> None:
    parser.add_argument("--stand-in", action="store_true",
                        help="run a board's stages (TensorRT) with ONNX Runtime instead: checks the numbers, "
                        "says nothing about the board's latency")


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
                        help="a board and power mode to model, e.g. orin-nano-8gb@15w; may be repeated")
    parser.add_argument("--precision", choices=SCHEMES,
                        help="what if all layers had this precision (default: as built)")
    parser.add_argument("--iterations", type=positive, metavar="K",
                        help="what if denoising loops ran K iterations (default: as built)")
    parser.add_argument("--cameras", type=positive, metavar="N",
                        help="what if there were N cameras (default: as built); stages that read several images stay "
                             "as they are")
    parser.add_argument("--execute", type=positive, metavar="H",
                        help="what if H actions of each chunk were executed (default: as built)")


def what_if(args):
    """The arguments of add_what_if as a WhatIf."""
    from vlacompile.profile.roofline import WhatIf

    return WhatIf(args.precision, args.iterations, args.cameras, args.execute)
