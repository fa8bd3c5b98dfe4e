"""The first hour of four people, recorded: `python -m docs.first_hours [NAME ...] [--download]`.

Each types the commands of a page of docs/first-hour/ into one shell, in an empty folder, with what `make wheels` builds
installed. Writes profiles/host/first-hours.json, from which the pages and their table are rendered. --download: their
requirements are installed from the package index, which takes minutes; without it they are linked from this
environment, and the table says so. docs/newcomer.py records the user of LeRobot.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from docs import newcomer, recorded_steps
from docs.figures import MISSING, ROOT, figures_of, table
from docs.installed_wheels import linked_requirements, wheels
from docs.recorded_steps import NO_PROGRESS, Step
from vlacompile.profile import machine
from vlart.files.atomic import write_file

FIGURES = "profiles/host/first-hours.json"
MINUTES = 10  # that each may take, what is downloaded included
LEROBOT = ("dataset", "train", "build", "plugin", "rollout", "rolled")  # steps of docs/newcomer.py


def _install(what: str) -> Step:
    return Step("install", "python3 -m venv env && . env/bin/activate\n"
                f"pip install -q --find-links $VLACOMPILE/build/wheels {what}", "^$")


@dataclass(frozen=True)
class Person:
    """title: of the table. given: makes what the person has before the first step."""

    title: str
    steps: tuple[Step, ...]
    given: Callable[[Path], None] = lambda folder: None


def _checkpoint(folder: Path) -> None:
    from tests.frontends.openpi.checkpoints import write

    write("pi0_libero", folder / "checkpoints" / "29999")


HERE = "examples/first_hour"
PEOPLE = {
    "own-policy": Person("an own policy, in C++", (
        _install("vlacompile"),
        Step("build", "vlacompile build pick:make -o pick.vlab", NO_PROGRESS, (f"{HERE}/pick.py",)),
        Step("verify", "vlacompile verify pick.vlab", NO_PROGRESS),
        Step("compile", "tar xf $VLACOMPILE/build/wheels/libvlart-*-linux-$(uname -m).tar.gz\n"
             "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH=$(echo $PWD/libvlart-*) > cmake.log\n"
             "cmake --build build", "Built target", (f"{HERE}/robot.cc", f"{HERE}/CMakeLists.txt")),
        Step("run", "ORT=$(python -c 'from vlart.runtime.library import onnxruntime_library as ort; print(ort())')\n"
             "build/robot pick.vlab $ORT"))),
    "openpi": Person("openpi, with its client", (
        _install("'vlacompile[serve]'"),
        Step("build", "vlacompile build checkpoints/29999 --openpi-config pi0_libero \\\n"
             "  --tokenizer checkpoints/tokenizer.json -o pi0.vlab", NO_PROGRESS),
        Step("serve", "vlacompile serve pi0.vlab --noise normal \\\n"
             "  --map observation/image=observation.images.image \\\n"
             "  --map observation/wrist_image=observation.images.wrist_image > serve.log 2>&1 &\n"
             "until grep -qs 8000 serve.log; do sleep 1; done; cat serve.log", NO_PROGRESS),
        Step("client", "pip install -q --no-deps openpi-client==0.1.2\npython client.py; kill %1", "actions",
             (f"{HERE}/client.py",))), _checkpoint),
    "ros2": Person("ROS 2, without ROS yet", (
        _install("'vlacompile[text]' 'vlacompile-runtime[ros]'"),
        Step("build", "vlacompile build words:make -o words.vlab", NO_PROGRESS, (f"{HERE}/words.py",)),
        Step("package", "pip install -q --no-deps $VLACOMPILE/integrations/ros2/vlacompile_ros\n"
             "pip install -q rosbags", "^$"),
        Step("bag", "python $VLACOMPILE/examples/first_hour/make_bag.py robot", "^$"),
        Step("rehearse", "python -m vlacompile_ros.rehearse words.vlab topics.yaml robot --actions acted", "",
             (f"{HERE}/topics.yaml",)))),
}


def run(name: str, folder: Path, built: Path, download: bool = False) -> list[dict]:
    """A person's steps (recorded_steps.run). built: the folder of `make wheels`, which has build/wheels."""
    person = PEOPLE[name]
    person.given(folder)
    more = {"VLACOMPILE": str(built), "HOME": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONWARNINGS": "ignore"}
    if download:
        return recorded_steps.run(person.steps, folder, recorded_steps.clean_environment(**more))
    site = linked_requirements(folder / ".requirements")
    more |= {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PYTHONPATH": str(site),
             "PIP_NO_BUILD_ISOLATION": "0"}  # which is how pip is told that there is none
    install, *others = person.steps
    linked = replace(install, command=f"{install.command} vlacompile-runtime")  # which pip would have resolved
    found = recorded_steps.run((linked, *others), folder, recorded_steps.clean_environment(**more))
    return [row | {"command": step.command} for row, step in zip(found, person.steps, strict=False)]


def blocks() -> dict[str, Callable[[], str]]:
    """{name of a block of a page: what renders it}"""
    found = {}
    for name, person in PEOPLE.items():
        for step in person.steps:
            found[f"first-hour-{name}-{step.name}"] = lambda name=name, step=step: recorded_steps.block(
                figures_of(FIGURES).get(name, {}).get("steps", ()), step, "docs/first_hours.py")
    return found | {"first-hours": first_hours}


def first_hours() -> str:
    """Every step of everybody."""
    figures = figures_of(FIGURES)
    if not figures:
        return MISSING
    of_lerobot = {r["name"]: r for r in figures_of(newcomer.FIGURES).get("steps", ())}
    recorded = {"LeRobot": [of_lerobot[n] for n in LEROBOT if n in of_lerobot],
                **{PEOPLE[n].title: figures[n]["steps"] for n in PEOPLE if n in figures}}
    rows = []
    for title, steps in recorded.items():
        for i, step in enumerate(steps):
            size = step.get("megabytes")
            rows.append([title if i == 0 else "", step["name"], "`" + step["command"].splitlines()[-1].strip() + "`",
                         f"{step['seconds']:.0f}", "" if size is None else f"{size:.0f}"])
        rows.append(["", "together", "", f"{sum(s['seconds'] for s in steps):.0f}",
                     f"{sum(s.get('megabytes', 0) for s in steps):.0f}" if "megabytes" in steps[0] else ""])
    where = next(iter(figures.values()))["machine"]
    linked = "" if all(f["downloaded"] for f in figures.values()) else (
        "`install` is without the requirements (PyTorch and ONNX Runtime among them), which were there; what they take "
        "stands in the [quickstart](../quickstart.md#1-set-up). ")
    return table(["who", "step", "command (its last line)", "seconds", "MB on disk"], rows,
                 f"{where['cpu']}, {where['cores']} cores, shared with other work: at rest it takes less. {linked}"
                 "LeRobot's own installation is on its page.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEOPLE)}; all of them")
    parser.add_argument("--download", action="store_true")
    args = parser.parse_args()
    figures = figures_of(FIGURES)
    with tempfile.TemporaryDirectory() as scratch:
        built = wheels(Path(scratch) / "clone")
        for name in args.names or PEOPLE:
            folder = Path(scratch) / name
            folder.mkdir()
            found = run(name, folder, built, args.download)
            for row in found:
                print(f"{name} {row['name']}: {row['seconds']} s, exit {row['status']}", *row["output"], sep="\n  ")
            if len(found) < len(PEOPLE[name].steps) or any(r["status"] for r in found):
                sys.exit("not recorded: a command failed")
            figures[name] = {"steps": found, "downloaded": args.download, "machine": machine.describe()}
    write_file(ROOT / FIGURES, (json.dumps(figures, indent=1) + "\n").encode())

    from docs import render

    render.main()


if __name__ == "__main__":
    main()
