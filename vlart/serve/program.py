"""`vlart-serve BUNDLE`: the server without the compiler's command line, which it has the arguments of."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from vlart.errors import ConfigError, UsageError, VlaError
from vlart.serve.arguments import DESCRIPTION, add_arguments
from vlart.standard_output import print_failure, until_written

EPILOG = """examples:
  vlart-serve light.vlab
  vlart-serve policy.vlab --protocol lerobot --http-port 9100

Stop it with Ctrl-C or SIGTERM: requests in progress are answered first."""
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where=self.prog, why=" ".join(self.format_usage().split()),
                         fix=f"see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return until_written(lambda: _run(argv), print_failure)


def _run(argv: list[str] | None) -> int:
    parser = _Parser(prog="vlart-serve", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        args = parser.parse_args(argv)
        from vlart.serve.command import listen, open_bundle

        served = open_bundle(args, lambda name: _say(f"  {name}"), _no_checkpoints)
        _say(listen(served, lambda _, line: print(line, flush=True)))
    except VlaError as error:
        print_failure(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _no_checkpoints(checkpoint: str, host: Any) -> NoReturn:
    raise ConfigError("checkpoints are read by the compiler alone", where="--instructions", why=checkpoint,
                      fix="build the bundle with its tokenizer, or use `vlacompile serve` (pip install vlacompile)")


if __name__ == "__main__":
    sys.exit(main())
