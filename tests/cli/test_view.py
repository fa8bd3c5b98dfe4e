"""`vlacompile view` of a bundle, as somebody at a terminal uses it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.samples import recorded_robot as robot

VIEW = [sys.executable, "-m", "vlacompile.cli.main", "view"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return robot.built(tmp_path_factory.mktemp("viewed"))


@pytest.mark.parametrize("log", [False, True], ids=["a page", "live"])
def test_a_bundles_page_is_served_until_it_is_ended(bundle, tmp_path, log):
    options = ["--log", str(tmp_path / "later.vlog")] if log else []
    process = subprocess.Popen([*VIEW, str(bundle), "--no-browser", "--json", *options], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"]
        page = urllib.request.urlopen(url, timeout=20).read().decode()
        assert "seeing" in page and ('id="live"' in page) == log
        if log:
            assert "waiting" in json.load(urllib.request.urlopen(f"{url}state.json", timeout=20))["problem"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143 and "Traceback" not in said


@pytest.mark.parametrize(("options", "told"), [(["--port", "70000"], "is no port"),
                                               (["--save", "x.rrd"], "--save is of")])
def test_what_does_not_fit_a_bundle_is_refused(cli, bundle, options, told):
    code, _, err = cli("view", bundle, "--no-browser", *options)
    assert code == 2 and told in err


def test_a_log_beside_a_log_is_refused(cli, tmp_path):
    code, _, err = cli("view", tmp_path / "a.vlog", "--log", tmp_path / "b.vlog")
    assert code == 2 and "--log is of a bundle" in err


def test_a_port_that_is_taken_is_told(cli, bundle):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = cli("view", bundle, "--no-browser", "--port", str(taken.getsockname()[1]))
    assert code == 3 and "another --port" in err
