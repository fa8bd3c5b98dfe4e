"""The runtime, built once for all its tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime_c.running import BUILD, ENGINES, Engine, make, ort_path
from tests.runtime_c.tensorrt import Board


@pytest.fixture(scope="session")
def ort() -> str:
    return ort_path()


@pytest.fixture(params=ENGINES)
def engine(request) -> Engine:
    """Every engine that passes the conformance tests."""
    path = ENGINES[request.param]()
    if path is None:
        pytest.skip(f"pip install 'vlacompile[{request.param}]'")
    return Engine(request.param, str(path))


@pytest.fixture
def openvino() -> Engine:
    path = ENGINES["openvino"]()
    if path is None:
        pytest.skip("pip install 'vlacompile[openvino]'")
    return Engine("openvino", str(path))


@pytest.fixture(scope="session")
def lib():
    from vlart_ctypes import Library

    make(f"BUILD={BUILD}", "all", str(BUILD / "libfake_tensorrt.so"))
    return Library(BUILD / "libvlart.so")


@pytest.fixture(scope="session")
def sanitized() -> Path:
    build = BUILD / "sanitize"
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    make(f"BUILD={build}", f"OPT={flags}", "test-programs", "samples", "all")
    return build


@pytest.fixture
def board(lib, tmp_path):
    """A double of a Jetson (tensorrt.py)."""
    (tmp_path / "board").mkdir()
    return Board(tmp_path / "board")
