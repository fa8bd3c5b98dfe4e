"""Arguments and argument types that several verbs share."""

from __future__ import annotations

from dataclasses import fields

from vlart.arguments import positive
from vlart.vocabulary import SCHEMES

STAND_IN = "by ONNX Runtime: a stand-in, not the board"


def add_stand_in(parser) -> None:
    parser.add_argument("--stand-in", action="store_true",
                        help="run a board's stages (TensorRT) with ONNX Runtime instead: checks the numbers, "
                        "says nothing about the board's latency")


def add_text_length(parser) -> None:
    parser.add_argument("--text-length", type=_lengths, metavar="N[,N...]",
                        help="compile for instructions of up to N tokens instead of all that the policy pads to; a "
                             "longer one is refused. Of several lengths in one bundle, such as 48,96,200, an "
                             "instruction runs in the shortest that holds it (default: the recipe's text.length or "
                             "text.lengths)")


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def add_checkpoint_options(parser) -> None:
    from vlacompile.frontends.checkpoint_options import CheckpointOptions, flag_of

    for f in fields(CheckpointOptions):
        takes = {"metavar": f.metadata["metavar"]} if f.metadata["metavar"] else {"action": "store_true"}
        parser.add_argument(flag_of(f), help=f.metadata["help"], **takes)


def checkpoint_options(args):
    """The arguments of add_checkpoint_options as CheckpointOptions."""
    from vlacompile.frontends.checkpoint_options import CheckpointOptions, flag_of

    return CheckpointOptions(**{f.name: getattr(args, flag_of(f).lstrip("-").replace("-", "_"))
                                for f in fields(CheckpointOptions)})


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
