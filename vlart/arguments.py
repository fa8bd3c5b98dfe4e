"""Arguments and argument types that the programs of the runtime share with the compiler's verbs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MOST, MOST_THREADS = (1 << 63) - 1, (1 << 31) - 1
MOST_SECONDS = 1_000_000
UNCALIBRATED = ("accept a bundle whose INT8 ranges were calibrated on generated observations, so that its "
                "quantisation error on real ones is unknown")


def add_native_code(parser) -> None:
    parser.add_argument("--native-code", action="store_true",
                        help="load the stages that are native code (TVM) of a bundle that no signer vouches for")


def add_trust(parser) -> None:
    parser.add_argument("--signers", metavar="FILE",
                        help="take only a bundle that one of these signed: a list in ssh-keygen's ALLOWED SIGNERS "
                             "format, PRINCIPAL KEYTYPE KEY on a line")
    parser.add_argument("--keep-engines", action="store_true",
                        help="with --signers, take the bundle's engines, which no signature binds: you know that "
                             "vlart-build built them here")
    add_native_code(parser)


def add_record(parser) -> None:
    parser.add_argument("--record", metavar="FILE",
                        help="record what the policy sees, computes and hands out there, for `vlacompile replay` and "
                             "`vlacompile export`; the file must not exist")
    parser.add_argument("--record-mib", type=positive, default=64, metavar="N",
                        help="size of that file in MiB, whose oldest part is overwritten (default: 64)")
    parser.add_argument("--record-digests", action="store_true",
                        help="record sizes and checksums of inputs instead of their content: smaller, and nothing that "
                             "can be replayed")


def trusted(args):
    """The signature of args.bundle, by one of args.signers, who then vouch for its native code; None where none are
    named. Raises BundleError, SignatureError."""
    from vlart.bundle.signature import trust

    found = trust(args.bundle, args.signers, keep_engines=args.keep_engines, native_code=args.native_code)
    args.native_code = found.native_code
    return found.signature


def positive(text: str) -> int:
    return _whole(text, 1, MOST)


def positive_to(most: int) -> Callable[[str], int]:
    return lambda text: _whole(text, 1, most)


def seconds(text: str) -> int:
    return _whole(text, 1, MOST_SECONDS)


def thread_count(text: str) -> int:
    return _whole(text, 0, MOST_THREADS)


def not_negative(text: str) -> int:
    return _whole(text, 0, MOST)


def _whole(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number of at least {least}')
    if number > most:
        raise argparse.ArgumentTypeError(f'"{text}" is more than {most}')
    return number
