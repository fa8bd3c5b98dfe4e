"""The error classes. Each error says what failed, where, why, and how to fix it.

Four short lines for a person, four fields for a program, one exit code per class
(`EXIT_CODES` of the command line are read from the classes).
"""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """With what a terminal would act on, and what no encoding has, spelled out: what comes from outside (names of a
    bundle, a client, a device, a checkpoint, a data set) may be anything."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _line(text: object) -> str:
    """As one line of what is printable, whoever shows it and wherever."""
    return printable(" ".join(str(text).split()))


class VlaError(Exception):
    """Base of every error that vlacompile raises on purpose. Its four fields are lines of printable text."""

    exit_code = 1
    phase: str | None = None  # the build phase that failed, as `vlacompile build --stop-after` names it

    def __init__(self, what: str, *, where: str, why: str, fix: str):
        self.what, self.where, self.why, self.fix = map(_line, (what, where, why, fix))
        super().__init__(self.what)

    def __reduce__(self) -> tuple:
        """Errors come back from other processes as they were raised there."""
        return _restored, (type(self), self.args, dict(self.__dict__))

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  why:   {self.why}\n  fix:   {self.fix}"

    def as_dict(self) -> dict[str, str]:
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
        } | ({} if self.phase is None else {"phase": str(self.phase)})


def _restored(kind: type[VlaError], args: tuple, fields: dict) -> VlaError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class ConfigError(VlaError):
    """A recipe, target or argument is not valid."""

    exit_code = 3


class UsageError(ConfigError):
    """The command line itself is wrong."""

    exit_code = 2


class SourceError(VlaError):
    """The policy or checkpoint cannot be read or its kind is unknown."""

    exit_code = 4


class CaptureError(VlaError):
    """The inference function cannot be traced."""

    exit_code = 5


class StagingError(VlaError):
    """The traced graph cannot be divided into the stages that the recipe asks for."""

    exit_code = 6


class PassError(StagingError):
    """A pass violates its contract, or returned an invalid program: an error of the compiler, not of the
    policy."""


class EmitError(VlaError):
    """A stage cannot be emitted for its backend."""

    exit_code = 7


class BundleError(VlaError):
    """A bundle is missing, truncated, modified or of another format version."""

    exit_code = 8


class SignatureError(BundleError):
    """A bundle is not signed, not by one of the signers, or not as it was signed."""


class RuntimeFailure(VlaError):
    """libvlart refused or failed; `status` is its status name, for example `ACTION_NOT_FINITE`."""

    exit_code = 9

    def __init__(self, what: str, *, where: str, why: str, fix: str, status: str = "BACKEND_FAILED"):
        super().__init__(what, where=where, why=why, fix=fix)
        self.status = status

    def as_dict(self) -> dict[str, str]:
        return super().as_dict() | {"status": self.status}


class ParityError(VlaError):
    """Outputs differ by more than the tolerance table allows."""

    exit_code = 10


class CalibrationError(VlaError):
    """The observations of a calibration set do not fit the policy, or are too few."""

    exit_code = 11


class BudgetError(VlaError):
    """No assignment of precisions stays within the recipe's budgets.

    reachable: {budget: the best value reachable while the other budgets hold}; None if those cannot hold."""

    exit_code = 11

    def __init__(self, what: str, *, where: str, why: str, fix: str, reachable: dict[str, float | None]):
        super().__init__(what, where=where, why=why, fix=fix)
        self.reachable = reachable

    def as_dict(self) -> dict:
        return super().as_dict() | {"reachable": self.reachable}


class PrecisionError(VlaError):
    """No precision that was tried keeps the policy's error within the allowed loss."""

    exit_code = 11


class DeployError(VlaError):
    """A device cannot be reached, refuses a bundle, or fails the bundle's self-test.

    step: which step failed, as `vlacompile flash` names them."""

    exit_code = 12

    def __init__(self, what: str, *, where: str, why: str, fix: str, step: str):
        super().__init__(what, where=where, why=why, fix=fix)
        self.step = step

    def as_dict(self) -> dict[str, str]:
        return super().as_dict() | {"step": self.step}


class OutputError(VlaError):
    """What was printed has not reached stdout: a disk is full, say."""

    exit_code = 13


class WorkerError(VlaError):
    """The processes or machines that share the work cannot be reached, or a task ended every one that ran it."""

    exit_code = 14


def nearest(word: object, known: Iterable[str]) -> str:
    """'; did you mean "x"?' when `word` is close to one of `known`, else the list of them."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1) if isinstance(word, str) else []
    return f'did you mean "{close[0]}"?' if close else "known: " + ", ".join(names)
