"""What the console script calls: the command line, and a way out where what it is made of is missing or broken.

Imports Python's own library alone until then.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit code."""
    try:
        from vlacompile.cli.main import main as command_line
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was left behind\n")
        return 130
    except ImportError as error:
        argv = sys.argv[1:]
        if argv[:1] == ["doctor"]:
            from vlacompile.doctor.examine import main as examine

            return examine(argv[1:])
        sys.stderr.write("error: the command line cannot start\n"
                         "  where: this Python environment\n"
                         f"  why:   {' '.join(str(error).split())}\n"
                         "  fix:   `vlacompile doctor` says what is missing and how to install it\n")
        return 1
    return command_line()
