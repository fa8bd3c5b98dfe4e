"""`vlacompile sign BUNDLE --key KEY`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from vlacompile.cli.terminal import Terminal
from vlart.arguments import not_negative

SUMMARY = "sign a bundle with an ssh key"
DESCRIPTION = """Sign a bundle, so that a device takes it from you and nobody else: SHA256SUMS,
a list of every file of the bundle, is written into it, and ssh-keygen's
signature of that list beside it. KEY is a private key's file (ed25519, ECDSA,
RSA, or of a security key, which then waits for a touch), or the .pub file of a
key that ssh-agent holds. A bundle that is built again must be signed again.

Every signature has a release number, by default the time. A device activates no
bundle of a lower number than it has seen; signing an older bundle again gives
it a new number, and is the permission to go back to it."""
EPILOG = """examples:
  vlacompile sign pick.vlab --key ~/.ssh/id_ed25519
  vlacompile sign pick.vlab --key release.pub --release 42

next: `vlacompile verify BUNDLE --signers FILE`, `vlacompile flash BUNDLE HOST`;
`vlacompile device enroll HOST --signers FILE` tells a device whose bundles it
takes"""


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("--key", required=True, metavar="KEY",
                        help="a private key's file, or the .pub file of a key that ssh-agent holds")
    parser.add_argument("--release", type=not_negative, metavar="N",
                        help="the number that devices count (default: the seconds since 1970)")


def run(args, terminal: Terminal) -> None:
    with terminal.phases() as phases:
        phases("check the files")
        from vlart.bundle.directory import read_bundle
        from vlart.bundle.signature import sign

        bundle = read_bundle(args.bundle)
        phases("sign; a security key waits for a touch")
        found = sign(bundle, Path(args.key), args.release)
    terminal.show({"bundle": str(bundle.path), **asdict(found)}, lambda console: print_signature(console, found))


def print_signature(console: Console, found) -> None:
    """found: a Signature."""
    by = f"{found.principal}, " if found.principal else ""
    console.print(f"signed   by {by}{found.key}", soft_wrap=True)
    console.print(f"         release {found.release}")
