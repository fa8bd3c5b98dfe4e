"""A real sshd on the loopback, with host key, user key, known hosts and configuration in one folder; nothing of ~/.ssh.

Every command goes through a script that a test may replace (`ForceCommand`): that is how a test plays the device's
part in a fault. `HOME` and `PATH` of the sessions are the folder's own.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = "apt-get install openssh-server" if SSHD is None or shutil.which("ssh-keygen") is None else ""
# STEP: which step of vlacompile/deploy/device.sh this session is for.
AS_IT_IS = """\
#!/bin/sh
STEP=${SSH_ORIGINAL_COMMAND##*' vlacompile '}
export STEP="${STEP%% *}"
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Sshd:
    """folder: holds everything; config: for ssh -F; the host is called `board`."""

    folder: Path
    port: int
    process: subprocess.Popen

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def path(self) -> Path:
        """A folder that the sessions' PATH begins with."""
        return self.folder / "path"

    def commands_go_through(self, script: str) -> None:
        """Written beside and renamed: a session that is just starting sees the old script or the new one."""
        new = self.folder / "through.new"
        new.write_text(script)
        new.chmod(0o755)
        new.rename(self.folder / "through")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def start(folder: Path) -> Sshd:
    """Raises RuntimeError with sshd's words where it does not come up."""
    assert SSHD is not None
    for name in ("home", "path"):
        (folder / name).mkdir()
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd of Debian, started by root, wants it
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    (folder / "sshd_config").write_text(f"""\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
ForceCommand {folder}/through
SetEnv HOME={folder}/home PATH={folder}/path:/usr/local/bin:/usr/bin:/bin
""")
    (folder / "ssh_config").write_text(f"""\
Host board-off
  Port 1
Host board board-*
  HostName 127.0.0.1
  Port {port}
  User {getpass.getuser()}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
""")
    log = (folder / "sshd.log").open("w")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log, stdout=log)
    log.close()
    found = Sshd(folder, port, process)
    found.commands_go_through(AS_IT_IS)
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError((folder / "sshd.log").read_text())
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return found
        time.sleep(0.05)
    found.end()
    raise RuntimeError("sshd does not listen: " + (folder / "sshd.log").read_text())
