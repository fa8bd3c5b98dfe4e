"""`vlacompile device enroll HOST --signers FILE`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from vlacompile.cli.terminal import Terminal
from vlacompile.deploy import ROOT

SUMMARY = "enroll signers: tell a device whose bundles it takes"
DESCRIPTION = """Install a list of signers on a device. From then on it takes only bundles that
one of them signed: `vlacompile flash` and vlart-build refuse others there, by
the device's own ssh-keygen (OpenSSH 8.2 or newer). FILE is in ssh-keygen's
ALLOWED SIGNERS format, with validity periods, namespaces and certificate
authorities as it has them:

  release@robots namespaces="vlacompile-bundle" ssh-ed25519 AAAA...

To change keys, enroll the new list with --replace. The bundle that is current
goes on running, whoever signed it."""
EPILOG = """examples:
  vlacompile device enroll robot@arm-left --signers signers
  vlacompile device enroll robot@arm-left --signers signers --replace

next: `vlacompile sign BUNDLE --key KEY`, `vlacompile flash BUNDLE HOST`"""


def add_arguments(parser) -> None:
    parser.add_argument("action", choices=("enroll",), help="install a list of signers")
    parser.add_argument("host", metavar="HOST",
                        help="the device, as given to ssh: user@name, or an alias from its configuration")
    parser.add_argument("--signers", required=True, metavar="FILE", help="the list of signers")
    parser.add_argument("--replace", action="store_true", help="also where the device has another list")
    parser.add_argument("--root", default=ROOT, metavar="DIR",
                        help=f"installation directory on the device (default: {ROOT})")
    parser.add_argument("--ssh-config", metavar="FILE", help="ssh configuration to use instead of ~/.ssh/config")


def run(args, terminal: Terminal) -> None:
    from vlacompile.deploy.enroll import enroll, read_signers
    from vlacompile.deploy.ssh import Connection

    signers = Path(args.signers)
    read_signers(signers)  # before anything slow
    config = Path(args.ssh_config) if args.ssh_config else None
    with terminal.phases() as phases:
        phases(f"connect to {args.host}")
        with Connection(args.host, args.root, config=config, batch=not terminal.err.is_terminal) as connection:
            phases("enroll the signers")
            found = enroll(connection, signers, args.replace)
    terminal.show(asdict(found), lambda console: _print(console, found))


def _print(console: Console, found) -> None:
    console.print(f"{found.host} takes bundles of {found.signers} signer{'s' * (found.signers != 1)}", style="bold",
                  soft_wrap=True)
    for name in found.covered:
        console.print(f"{name}: its current bundle is signed by one of them")
    for name in found.uncovered:
        console.print(f"{name}: its current bundle is not; it goes on running until a signed one is flashed")
