"""The code blocks of the pages run as they are shown: programs, commands with their output, recipes.

Every page has a folder of its own, in which its blocks run one after the other as in the top of the repository. The
bundles that several pages use are built once, from the policies that the pages themselves show.
"""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vlacompile as vc
from tests.docs.pages import DOCS, ROOT, RUNNABLE, Block, blocks, commands, matches, name_of, pages
from vlacompile.cli.main import main
from vlacompile.recipe.recipe import load_recipe
from vlart.files.yaml_lines import parse_yaml
from vlart.ros.mapping import topic_map
from vlart.runtime.library import onnxruntime_library
from vlart.serve.server import PORTS

# bundle: the page that shows its policy, and the arguments that build it there.
BUILT = {
    "pick.vlab": (DOCS / "own-policy.md", ("my_robot.policy:make", "-o", "pick.vlab")),
    "flow.vlab": (DOCS / "own-policy.md", ("my_robot.flow:make", "-o", "flow.vlab")),
}
LINKED = ("build", "examples", "runtime_c", "profiles", "recipes", "targets", "docs")
SERVED = [block for page in pages() for block in blocks(page) if "served" in block.marks]
ADDS = DOCS / "add-a-policy.md"  # to the package itself: test_add_a_policy.py runs it in a copy
PAGES = [page for page in pages() if page != ADDS and any(b.language in RUNNABLE for b in blocks(page))]


def test_what_is_not_run_says_why():
    """The list is short enough to be read: `pytest -s -k says_why` prints it."""
    for page in pages():
        for block in blocks(page):
            if "not run" in block.marks:
                print(f"{block}: {block.marks['not run']}")
                assert len(block.marks["not run"].split()) >= 3, f"{block} gives no reason"


def test_every_block_has_a_language():
    for page in pages():
        for block in blocks(page):
            assert block.language in (*RUNNABLE, "text", "json", "mermaid", "cpp", "cmake"), str(block)


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with the bundles of BUILT and the files that their pages show."""
    folder = tmp_path_factory.mktemp("built")
    with inside(folder):
        for page in {page for page, _ in BUILT.values()}:
            write_files(page)
        for arguments in (a for _, a in BUILT.values()):
            assert main(["build", *arguments]) == 0
    return folder


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_of_a_page(page, built, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ORT", str(onnxruntime_library()))
    text = page.read_text(encoding="utf-8")
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    for name in BUILT:
        if name in text and BUILT[name][0] != page:
            shutil.copytree(built / name, tmp_path / name)
    if page not in {p for p, _ in BUILT.values()}:
        shutil.copytree(built / "my_robot", tmp_path / "my_robot")
    with inside(tmp_path):
        for number, block in enumerate(blocks(page)):
            if block.language in RUNNABLE and not {"not run", "served"} & block.marks.keys():
                perform(block, number)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:openpi_client", "ignore::ResourceWarning",
                            "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("block", SERVED, ids=str)
def test_blocks_beside_a_server(block, built):
    """openpi's client says nothing when it goes: its socket is closed with it."""
    pytest.importorskip("openpi_client", reason="openpi's client: pip install --no-deps openpi-client==0.1.2")
    from tests.serve.serving import websocket_server

    with websocket_server(vc.load(built / block.marks["served"])) as running:
        body = block.body.replace(f", {PORTS['openpi']})", f", {running.place[1]})")
        assert body != block.body
        exec(compile(body, str(block), "exec"), {"__name__": "__main__"})
        assert running.host.metrics.value("requests", "ok") > 0


def perform(block: Block, number: int) -> None:
    if "file" in block.marks:
        write_file(block)
    elif block.language == "python":
        program = Path(f"block_{number}.py")
        program.write_text(block.body, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(program), run_name="__main__")
    elif block.language == "toml":
        recipe = Path(f"block_{number}.toml")
        recipe.write_text(f'name = "page"\ndescription = "of {block.page.name}"\n{block.body}', encoding="utf-8")
        load_recipe(str(recipe))
    elif block.language == "yaml":
        topic_map(parse_yaml(block.body, Path(str(block))))
    elif block.body.startswith("--8<-- "):  # the site puts a file there
        assert (ROOT / shlex.split(block.body)[1]).is_file(), str(block)
    elif block.language == "c":
        command = ["gcc", "-std=c11", "-Wall", "-Werror", "-fsyntax-only", f"-I{ROOT}/runtime_c/include", "-xc", "-"]
        done = subprocess.run(command, input=block.body, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    else:
        run_commands(block)


def run_commands(block: Block, inside_process: bool = True) -> None:
    all_of_it = commands(block)
    assert all_of_it, f"{block} has no command"
    for i, command in enumerate(all_of_it):
        wanted = int(block.marks.get("exit", 0)) if i == len(all_of_it) - 1 else 0
        code, said = run(command.text, inside_process)
        assert code == wanted, f"{block}: `{command.text}` ended with {code}\n{said}"
        if command.output is not None:
            assert matches(command.output, said), f"{block}: `{command.text}` said\n{said}"


def run(text: str, inside_process: bool = True) -> tuple[int, str]:
    """(exit code, what a person sees without progress). Verbs run in this process, which has imported PyTorch."""
    words = shlex.split(text)
    if not inside_process or words[0] != "vlacompile" or set(text) & set("|<>&;$"):
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + (done.stderr if done.returncode else "")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words[1:])
        except SystemExit as leave:  # of --help
            code = leave.code
    return code, out.getvalue() + (err.getvalue() if code else "")


def write_files(page: Path) -> None:
    for block in blocks(page):
        if "file" in block.marks:
            write_file(block)


def write_file(block: Block) -> None:
    path = Path(block.marks["file"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.body, encoding="utf-8")


@contextlib.contextmanager
def inside(folder: Path):
    """The folder as working directory, from which factories are imported anew."""
    before, path = Path.cwd(), list(sys.path)
    sys.path.insert(0, str(folder))  # as Python does for a program that is run there
    for name in [m for m in sys.modules if m == "my_robot" or m.startswith("my_robot.")]:
        del sys.modules[name]
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
