"""The command line of the server: what cannot be served is refused before anybody connects, and nothing is left."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

pytest.importorskip("websockets", reason="the server needs it: pip install 'vlacompile[serve]'")

REFUSED = {
    "a negative seed": (["--noise", "normal", "--seed", "-1"], 2, "of at least 0"),
    "a seed of nothing": (["--seed", "3"], 3, "--seed would do nothing"),
    "noise of nothing": (["--noise", "normal"], 3, "--noise normal would do nothing"),
    "pictures of nothing": (["--resize", "bilinear"], 3, "--resize would do nothing"),
    "a rate of nothing": (["--fps", "20"], 3, "--fps would do nothing"),
    "a second port of nothing": (["--http-port", "0"], 3, "--http-port would do nothing"),
    "engines of nobody": (["--keep-engines"], 3, "--keep-engines would do nothing"),
    "digests of nothing": (["--record-digests"], 3, "--record-digests would do nothing"),
    "a key that is mapped twice": (["--map", "a=state", "--map", "a=tokens"], 3, '"a" is mapped twice'),
    "an input that is ignored": (["--ignore", "state"], 3, '"state" is ignored, and the policy needs it'),
    "a time without end": (["--idle", "99999999999"], 2, "is more than 1000000"),
    "a shutdown without end": (["--grace", "1" + "0" * 400], 2, "is more than 1000000"),
    "a host that is no name": (["--host", "a..b", "--no-auth"], 3, "is no address of this machine"),
    "a host that no name server knows": (["--host", "nowhere.invalid", "--no-auth"], 3, "is no address of this"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_told_in_four_lines(cli, averaged, tmp_path, name):
    options, code, words = REFUSED[name]
    recording = [] if "digests" in name else ["--record", str(tmp_path / "r.vlog")]
    found, _, err = cli("serve", str(averaged.path), *recording, *options)
    told = err[err.index("error: "):]
    assert found == code and words in told and told.count("\n") == 4, err
    assert not (tmp_path / "r.vlog").exists(), "it would be in the way of the corrected command"


def test_which_port_is_taken(cli, averaged):
    pytest.importorskip("grpc", reason="LeRobot's protocol needs it: pip install 'vlacompile[serve]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options in (["--port", port], ["--port", "0", "--http-port", port]):
            code, _, err = cli("serve", str(averaged.path), "--protocol", "lerobot", *options)
            told = err[err.index("error: "):]
            assert code == 3 and f"port {port} of" in told and f"choose another port ({options[-2]} 0" in told
            assert told.count("\n") == 4 and "Traceback" not in err


def test_a_key_is_read_from_a_file_alone(cli, averaged, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    for options in (["--api-key-file", pipe], ["--tls-cert", pipe, "--tls-key", pipe]):
        code, _, err = cli("serve", str(averaged.path), *options)
        assert code == 3 and "it is no regular file" in err


def test_nobody_is_asked_for_a_passphrase(cli, averaged, tmp_path):
    key, certificate = str(tmp_path / "k.pem"), str(tmp_path / "c.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-keyout", key, "-out",
                    certificate, "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    code, _, err = cli("serve", str(averaged.path), "--tls-cert", certificate, "--tls-key", key)
    assert code == 3 and "the TLS key is encrypted" in err
