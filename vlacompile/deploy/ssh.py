"""One connection to a device: OpenSSH with the user's configuration, keys and known hosts, shared by all steps.

Owns the ssh processes and their error messages. The first process of a connection is the ssh master and holds the
device's lock; the steps of device.sh go through it. Host keys are checked as the user's configuration says.
Must not know bundles.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from vlacompile.deploy.answers import Unbelievable, check, listen
from vlart.errors import ConfigError, DeployError, printable

IN_ORDER = ("slots", "signed", "acceptance", "device")
SCRIPTS = tuple(Path(__file__).with_name(f"{name}.sh") for name in IN_ORDER)
SILENT_S = 180.0  # that a step may take without a word, besides what it does with bytes
SLOW_BYTES_S = 4e6  # that any device hashes and copies
MOST_ERRORS = 16 << 20  # bytes that ssh may write on its standard error
BEAT_S = 5.0  # heartbeat: device.sh releases the lock after a minute without one
STALE_S = 3600.0  # age of an empty folder that a killed process left
SOCKETS = Path("/tmp")  # the path of a Unix socket has at most 107 bytes; each has a folder of its own
SSH_FAILED = 255
# (part of ssh's message, error, fix). {host} is as the user wrote it.
TROUBLE = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "the host key of {host} has changed",
     "if the device was reinstalled: ssh-keygen -R its name, then `ssh {host}` once; "
     "if not, this may be a man-in-the-middle attack"),
    ("Host key verification failed", "the host key of {host} is not known",
     "run `ssh {host}` once and compare the fingerprint, or add it to known_hosts"),
    ("Permission denied", "{host} refuses the log-in", "make `ssh {host}` work without a password: ssh-copy-id {host}"),
    ("Too many authentication failures", "{host} refuses the log-in",
     "name the key: IdentityFile and IdentitiesOnly in ssh's configuration"),
    ("Could not resolve hostname", "the host name {host} cannot be resolved",
     "check the name, or add it to ssh's configuration"),
    ("Bad configuration option", "ssh's configuration is not valid", "correct that line"),
    ("", "{host} cannot be reached", "check that it is on and that `ssh {host}` works"),
)
# Failures reported by device.sh: (error, fix). {rest} is the detail that it adds.
REFUSALS = {
    "tools": ("{host} has no {rest}", "install coreutils, util-linux, findutils, grep and sed on the device"),
    "root": ("{rest} cannot be written on {host}",
             "create it once on the device: sudo install -d -o $USER {rest}; or choose another with --root"),
    "open": ("every user of {host} may change {rest}", "chmod o-w that folder there, or choose another with --root"),
    "taken": ("{host} is being flashed already", "wait for it: {rest}"),
    "busy": ("an interrupted step is still running on {host}",
             "it ends by itself; run the same command again in a minute"),
    "lost": ("another flash took over {host} after this one was silent", "run the same command again"),
    "moved": ("the partial file on {host} has changed", "run the same command again"),
    "write": ("{host} cannot store what is sent",
              "free space there (df -h), then run the same command again; it resumes"),
    "copy": ("{rest} cannot be written on {host}", "free space there (df -h), then run the same command again"),
    "full": ("the change cannot be recorded in {rest} on {host}; nothing was switched",
             "free space there (df -h), then run the same command again"),
    "keygen": ("ssh-keygen is missing or too old on {host}",
               "install OpenSSH 8.2 or newer there (apt-get install openssh-client)"),
    "unsigned": ("the bundle of {rest} is not signed; {host} takes signed bundles only",
                 "sign it where it was built: `vlacompile sign BUNDLE --key KEY`, then flash it again"),
    "signature": ("the bundle's signature does not hold on {host}", "sign it again, then flash it again"),
    "foreign": ("the bundle is signed by none of the signers of {host}",
                "take a bundle that one of them signed; or enroll others: `vlacompile device enroll {host} --replace`"),
    "period": ("the key's period is over on {host}, or has not begun",
               "sign the bundle with a key that is valid now; and check the clock of {host} (date)"),
    "list": ("what was signed is no list of the files of {rest}", "sign the bundle again, then flash it again"),
    "another": ("the signature is of another policy: {rest}", "flash the bundle that was signed"),
    "unbound": ("{rest} is not as it was signed", "flash the bundle that was signed; or sign it again as it is"),
    "older": ("the bundle's release is older than {host} had: {rest}",
              "to go back to the other slot: flash --rollback; to allow this bundle: sign it again, which gives it a "
              "new release"),
    "counter": ("the release counter of {host} is damaged: {rest}",
                "write into that file, on the device, the release of the bundle that is current (in its SHA256SUMS)"),
    "enrolled": ("{host} has other signers", "see who changed them; to put these in their place: --replace"),
    "cut": ("the list of signers arrived in part on {host}", "run the same command again"),
    "altered": ("{rest} of that slot is damaged on {host}", "flash the bundle again"),
    "start": ("vlart-run does not start on {host}",
              "install what is missing there, or build the runtime for that system"),
    "build": ("the engines were not built on {host}", "see vlart-build's message; engines already built are kept"),
    "self_test": ("the self-test failed on {host}", "build the bundle for this device again; see vlart-run's message"),
    "measure": ("{host} runs the bundle, but it was not measured: vlart-run ended with {rest}",
                "see vlart-run's message; the same command again repeats the self-test and the measurement alone"),
    "empty": ("slot {rest} on {host} has not passed its self-test", "flash the bundle again"),
    "which": ("{host} has several policies", "name one of: {rest}"),
    "policy": ("{host} has no such policy: {rest}", "see `vlacompile flash --status {host}`"),
    "previous": ("{host} has no slot to roll back to: {rest}", "flash another bundle first"),
    "systemctl": ("{host} has no systemd", "start the policy another way; the new slot is current"),
    "unit": ("systemd on {host} refuses the unit {rest}",
             "see `systemctl --user status {rest}` there; the new slot is current"),
}
# {what its system says: fix} of a step that could not write, and refusals that may be of that kind.
CAUSES = {
    "No space left on device": "free space there (df -h, df -i), then run the same command again; it resumes",
    "Disk quota exceeded": "free space there (quota), then run the same command again; it resumes",
    "Read-only file system": "find out why it is read-only there (dmesg, mount), then run the same command again",
    "Permission denied": "give what is below {root} there to the user that logs in (sudo chown -R), then run the same "
                         "command again",
    "Operation not permitted": "give what is below {root} there to the user that logs in (sudo chown -R; lsattr), then "
                               "run the same command again",
    "Input/output error": "its disk fails: look at dmesg there",
}
WRITES = ("root", "write", "copy", "full")


def _fix_of(said: list[str], root: str, otherwise: str) -> str:
    """By the last line that names a cause."""
    found = next((fix for line in reversed(said) for sign, fix in CAUSES.items() if sign in line), otherwise)
    return found.replace("{root}", root)


class Refused(DeployError):
    """A step that device.sh refused; key: a key of REFUSALS. said: what its programs said."""

    def __init__(self, key: str, rest: str, said: list[str], *, host: str, root: str, step: str):
        rest, last = rest[:300], _last(said)
        what, fix = (text.format(host=host, rest=rest) for text in REFUSALS[key])
        fix = _fix_of(said, root, fix) if key in WRITES else fix
        super().__init__(what, where=f"{host}, step {step}", why=last or rest or key, fix=fix, step=step)
        self.key = key


class Connection:
    """A context manager. batch: never ask for a password. root: on the device. lock: False for read-only steps."""

    def __init__(self, host: str, root: str, *, config: Path | None = None, batch: bool = True, lock: bool = True):
        if host.startswith("-") or not host.strip():
            raise ConfigError(f'"{host}" is not a host', where="vlacompile flash", why="ssh would read it as an option",
                              fix="give user@name, a name, or an alias from ssh's configuration")
        self.host, self.root, self.lock = host, root, lock
        self.token = f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._script = "".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
        self.folder: str | None = None
        self._ssh = ["ssh", *(["-F", str(config)] if config else [])]
        self._batch, self._done = batch, threading.Event()
        self._master: subprocess.Popen | None = None
        self._at_work: subprocess.Popen | None = None  # the running step

    def __enter__(self) -> Self:
        try:
            self.folder = _new_folder()
            self._ssh += ["-S", f"{self.folder}/s"]
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; may be called from another thread, and then the running step fails."""
        self._done.set()
        if self._at_work is not None:
            self._at_work.kill()
        if self._master is not None:
            with contextlib.suppress(OSError):
                self._master.stdin.close()
            try:
                self._master.wait(2)
            except subprocess.TimeoutExpired:
                self._master.kill()
                self._master.wait()
            self._master.stdout.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, step: str, *arguments: str, send: Iterable[bytes] | None = None,
            heard: Callable[[str], None] = lambda line: None, work_bytes: int = 0,
            silent_s: float | None = None) -> list[tuple[str, str]]:
        """Run one step of device.sh. send: its input; None keeps the input open until the step ends, so that the step
        ends with this process. heard: receives every line that is not an answer. work_bytes: that the device reads or
        writes without a word; silent_s: how long it may be silent besides; None: SILENT_S. Returns the answers
        (key, value), which are of the forms in answers.py. Raises DeployError."""
        silent_s = (SILENT_S if silent_s is None else silent_s) + work_bytes / SLOW_BYTES_S
        command = [*self._ssh, "-o", "ControlMaster=no", "-o", "ProxyCommand=false",  # only through the master
                   "--", self.host, self._remote(step, *arguments)]
        with tempfile.TemporaryFile() as errors, self._start(command, errors, step) as process:
            self._at_work = process
            try:
                feeder = _Feeder(process.stdin, send)
                found = listen(process.stdout.fileno(), heard, silent_s, moved=feeder.moved, watch=_watcher(errors))
                feeder.finish(silent_s)
                process.wait(SILENT_S)
            except (Unbelievable, subprocess.TimeoutExpired) as error:
                process.kill()
                raise self._unbelievable(step, error) from error
            except BaseException:
                process.kill()
                raise
            finally:
                self._at_work = None
            said = [*found.said, *_text(errors)]
        answers = self._judged(step, process.returncode, found.answers, said)
        try:
            check(step, answers)
        except Unbelievable as error:
            raise self._unbelievable(step, error) from error
        return answers

    def _unbelievable(self, step: str, error: Exception) -> DeployError:
        why = error.why if isinstance(error, Unbelievable) else "its shell does not end"
        return DeployError(f"{self.host} does not answer as a device does", where=f"{self.host}, step {step}", why=why,
                           fix="look at it: `ssh` to it must give a shell at once, with the tools of its system; then "
                               "run the same command again", step=step)

    def _open(self) -> None:
        options = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]
        options += ["-o", "BatchMode=yes"] if self._batch else []
        settings = self._settings()
        options += ["-o", "ConnectTimeout=20"] if settings.get("connecttimeout", "none") == "none" else []
        options += ["-o", "ServerAliveInterval=15"] if settings.get("serveraliveinterval", "0") == "0" else []
        step = "hold" if self.lock else "attend"
        with tempfile.TemporaryFile() as errors:
            self._master = self._start([*self._ssh, *options, "--", self.host, self._remote(step)], errors, "connect")
            try:
                found = listen(self._master.stdout.fileno(), lambda line: None, SILENT_S, until=("held", "failed"),
                               watch=_watcher(errors))
            except Unbelievable as error:
                raise self._unbelievable("connect", error) from error
            answers, said = found.answers, list(found.said)
            if not any(key == "held" for key, _ in answers):
                self._master.stdin.close()
                try:
                    code = self._master.wait(SILENT_S)
                except subprocess.TimeoutExpired as error:
                    raise self._unbelievable("connect", error) from error
                said += _text(errors)  # may come behind the answer
                self._judged("connect", code, answers, said)
                raise DeployError(f"{self.host} does not run the command that it is given", where=f"{self.host}, step "
                                                                                                  "connect",
                                  why=_last(said) or "it gave no answer", step="connect",
                                  fix="its login shell must be compatible with sh, and must not force another command")
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            try:
                self._master.stdin.write(b"x")
                self._master.stdin.flush()
            except (OSError, ValueError):  # the connection is lost; the running step reports it
                return

    def _settings(self) -> dict[str, str]:
        """ssh's effective configuration for this host."""
        with tempfile.TemporaryFile() as errors, self._start([*self._ssh, "-G", "--", self.host], errors,
                                                             "connect") as p:
            try:
                text = p.communicate(timeout=SILENT_S)[0].decode(errors="replace")  # ssh's own, of this machine
            except subprocess.TimeoutExpired as error:
                p.kill()
                raise DeployError("ssh's configuration cannot be read", where="this machine", step="connect",
                                  why=f"`ssh -G` did not end within {SILENT_S:.0f} s",
                                  fix="look at the programs that it runs (Match exec)") from error
            self._judged("connect", p.returncode, [], _text(errors))
        return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)

    def _start(self, command: list[str], errors, step: str) -> subprocess.Popen:
        try:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        except FileNotFoundError as error:
            raise DeployError("ssh is not installed here", where="this machine", why=str(error),
                              fix="install OpenSSH's client", step=step) from error

    def _remote(self, step: str, *arguments: str) -> str:
        return " ".join(map(_quoted, ("sh", "-c", self._script, "vlacompile", step, self.root, self.token,
                                      *arguments)))

    def _judged(self, step: str, code: int, answers: list[tuple[str, str]], said: list[str]) -> list[tuple[str, str]]:
        for key, value in answers:
            if key == "failed":
                key, _, rest = value.partition(" ")
                if key in REFUSALS:
                    raise Refused(key, rest, said, host=self.host, root=self.root, step=step)
        if code == 0:
            return answers
        where = f"{self.host}, step {step}"
        if code == SSH_FAILED and step == "connect":
            what, fix = next((w, f) for sign, w, f in TROUBLE if any(sign in line for line in said) or not sign)
            raise DeployError(what.format(host=self.host), where=where, why=_last(said) or "ssh failed",
                              fix=fix.format(host=self.host), step=step)
        if code == SSH_FAILED or code < 0:
            raise DeployError(f"the connection to {self.host} was lost", where=where, why=_last(said) or "ssh ended",
                              fix="run the same command again: the files received are kept", step=step)
        raise DeployError(f"a step was interrupted or failed on {self.host}", where=where,
                          why=_last(said) or f"its shell ended with {code}", step=step,
                          fix=_fix_of(said, self.root, "run the same command again: the files received are kept"))


class _Feeder:
    """Writes `send` to a step's input while its output is read; None: keeps the input open until finish()."""

    def __init__(self, stream, send: Iterable[bytes] | None):
        self._stream, self._send, self._error = stream, send, None
        self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._feed, daemon=True) if send is not None else None
        if self._thread is not None:
            self._thread.start()

    def _feed(self) -> None:
        try:
            for piece in self._send:
                self._stream.write(piece)
                self._moved = time.monotonic()
            self._stream.close()
        except BrokenPipeError:  # the step ended before its input: its answer has the reason
            with contextlib.suppress(OSError):
                self._stream.close()
        except (OSError, DeployError) as error:  # while reading the data to send
            self._error = error
            with contextlib.suppress(OSError):
                self._stream.close()

    def moved(self) -> float:
        """When the step last took something."""
        return self._moved

    def finish(self, seconds: float) -> None:
        """Raises Unbelievable if the step ended its output, and takes no input either."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                raise Unbelievable("it closed its output and reads no input")
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._error is not None:
            raise self._error


def _quoted(word: str) -> str:
    """A word for sh, and for fish, in which a backslash between single quotes is none of its own."""
    return shlex.quote(word).replace("\\", "'\"\\\\\"'") if shlex.quote(word) != word else word


def _new_folder() -> str:
    """For the socket of a connection. Those that killed processes left are empty by now, and are removed."""
    for old in SOCKETS.glob("vlac-*"):
        with contextlib.suppress(OSError):
            if old.lstat().st_uid == os.getuid() and time.time() - old.lstat().st_mtime > STALE_S:
                old.rmdir()
    return tempfile.mkdtemp(prefix="vlac-", dir=SOCKETS)


def _watcher(errors) -> Callable[[], None]:
    def watch() -> None:
        if os.fstat(errors.fileno()).st_size > MOST_ERRORS:
            raise Unbelievable(f"it wrote more than {MOST_ERRORS >> 20} MB on its standard error")
    return watch


def _text(errors) -> list[str]:
    """The last lines of what ssh wrote."""
    errors.seek(max(0, os.fstat(errors.fileno()).st_size - 65536))
    return [printable(line) for line in errors.read().decode(errors="replace").splitlines()]


def _last(said: list[str]) -> str:
    return next((line.strip() for line in reversed(said) if line.strip()), "")
