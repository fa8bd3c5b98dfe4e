"""A user of LeRobot who meets vlacompile: installs LeRobot, trains, builds, verifies, serves, runs.

python -m docs.newcomer [--lerobot ENVIRONMENT]   runs the commands of docs/lerobot.md and records what they print

Writes profiles/host/newcomer.json, from which the page is rendered: the commands that it shows are those that were run,
in one shell, in an empty folder. Needs python3.12, the network and minutes. --lerobot: a virtual environment that has
LeRobot 0.6.1, in place of a new one; the record then keeps what an earlier run of the installation printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from docs import recorded_steps
from docs.figures import ROOT, figures_of
from docs.recorded_steps import NO_PROGRESS, Step
from vlacompile.profile import machine

FIGURES = "profiles/host/newcomer.json"

INSTALL = Step("install", "python3.12 -m venv lerobot-env\n"
               "lerobot-env/bin/pip install -q 'lerobot[training,async,core-scripts]==0.6.1'", "^$")
STEPS = (
    Step("dataset", "lerobot-env/bin/python $VLACOMPILE/examples/lerobot/make_dataset.py datasets/pick episode.npz",
         "episodes of"),
    Step("train", "lerobot-env/bin/lerobot-train --dataset.repo_id=me/pick --dataset.root=datasets/pick \\\n"
         "  --policy.type=act --policy.device=cpu --policy.push_to_hub=false --output_dir=outputs/act \\\n"
         "  --policy.pretrained_backbone_weights=null --policy.dim_model=128 --policy.dim_feedforward=256 \\\n"
         "  --policy.chunk_size=20 --policy.n_action_steps=10 --steps=10 --batch_size=4 --num_workers=0",
         "num_learnable_params|End of training"),
    Step("build", "vlacompile build outputs/act/checkpoints/last/pretrained_model -o act.vlab", NO_PROGRESS),
    Step("verify", "vlacompile verify act.vlab", NO_PROGRESS),
    Step("serve", "vlacompile serve act.vlab --protocol lerobot > serve.log 2>&1 &\n"
         "until grep -qs 8080 serve.log; do sleep 1; done; cat serve.log", NO_PROGRESS),
    Step("client", "lerobot-env/bin/pip install -q --no-deps $VLACOMPILE/examples/lerobot/robot\n"
         "timeout --signal=INT 20 lerobot-env/bin/python -m lerobot.async_inference.robot_client \\\n"
         "  --server_address=127.0.0.1:8080 --policy_type=act --pretrained_name_or_path=act \\\n"
         "  --actions_per_chunk=20 --fps=10 --task='pick up the square' \\\n"
         "  --robot.type=recorded --robot.episode=episode.npz --robot.actions=6 --robot.sent=sent.jsonl",
         "Robot connected|Connected to policy server|Client stopped", ends=124),  # timeout's, which stops it
    Step("sent", "kill %1; wc -l < sent.jsonl", r"^\d+$"),
    Step("plugin", "lerobot-env/bin/pip install -q $VLACOMPILE/vlart $VLACOMPILE/integrations/lerobot", "^$"),
    Step("rollout", "lerobot-env/bin/lerobot-rollout --policy.type=vlab --policy.bundle=act.vlab \\\n"
         "  --task='pick up the square' --fps=10 --duration=5 --return_to_initial_position=false \\\n"
         "  --robot.type=recorded --robot.episode=episode.npz --robot.actions=6 --robot.sent=rollout.jsonl",
         "Policy loaded|Duration limit|Rollout finished"),
    Step("rolled", "wc -l < rollout.jsonl", r"^\d+$"),
)


def run(folder: Path, lerobot: Path | None = None) -> list[dict]:
    """The steps in one shell (recorded_steps.run). lerobot: an environment that has LeRobot, in place of the first
    step."""
    steps = STEPS if lerobot is not None else (INSTALL, *STEPS)
    tools = folder / ".tools"
    tools.mkdir()
    own = tools / "vlacompile"  # this checkout's, whatever is installed
    own.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -W ignore -c "
                   "'from vlacompile.cli.main import main; raise SystemExit(main())' \"$@\"\n", encoding="utf-8")
    own.chmod(0o755)
    if lerobot is not None:
        (folder / "lerobot-env").symlink_to(lerobot.absolute())
    return recorded_steps.run(steps, folder, recorded_steps.clean_environment(
        PATH=f"{tools}:{os.environ['PATH']}", HF_LEROBOT_HOME=str(folder / "lerobot")))


def block(step: Step) -> str:
    """For the page: a step's commands and what they printed."""
    return recorded_steps.block(figures_of(FIGURES).get("steps", ()), step, "docs/newcomer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", type=Path, metavar="ENVIRONMENT")
    given = parser.parse_args().lerobot
    with tempfile.TemporaryDirectory() as scratch:
        found = run(Path(scratch), given)
    kept = [r for r in figures_of(FIGURES).get("steps", ()) if r["name"] == INSTALL.name] if given else []
    failed = [r for r in found if r["status"]]
    for row in found:
        print(f"{row['name']}: {row['seconds']} s, exit {row['status']}", *row["output"], sep="\n  ")
    if failed or found[-1]["name"] != STEPS[-1].name:
        sys.exit("not recorded: a command failed")
    figures = {"steps": [*kept, *found], "machine": machine.describe()}
    (ROOT / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    from docs import render

    render.main()


if __name__ == "__main__":
    main()
