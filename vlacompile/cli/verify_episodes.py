"""`vlacompile verify BUNDLE --dataset DATASET`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from vlacompile.cli.arguments import STAND_IN, checkpoint_options
from vlacompile.cli.sources import fetched, run_in
from vlacompile.cli.terminal import Terminal
from vlart.arguments import trusted
from vlart.errors import ConfigError, UsageError

ONLY = {"source": [], "episode": [], "every": 1, "picture": None, "backbone": None}  # and their defaults
REFUSED = 3  # refused chunks that are printed; --json has all


def require_no_options(args) -> None:
    """Raises UsageError if an option is given that only a replay of episodes has."""
    given = [f"--{name}" for name, default in ONLY.items() if getattr(args, name) != default]
    for flag in [*given, *(said.partition(" ")[0] for said in checkpoint_options(args).spelled_out())]:
        raise UsageError(f"{flag} is given without a dataset", where="vlacompile verify",
                         why="the golden frames are in the bundle, with PyTorch's values",
                         fix="add --dataset DATASET to replay recorded episodes")


def run(args, terminal: Terminal) -> None:
    from vlacompile.frontends.dataset import open_dataset, read_info
    from vlacompile.frontends.environments import NeedsEnvironment
    from vlacompile.phases.load_policy import environment_for
    from vlart.bundle.directory import check_files, one_backbone, read_bundle

    trusted(args)
    bundle = one_backbone(read_bundle(args.bundle), args.backbone)
    if bundle.plan.action is None:
        raise ConfigError("the bundle has no actions to compare", where=args.bundle,
                          why="its first output is no action chunk", fix="`vlacompile verify` without --dataset")
    read_info(Path(args.dataset))  # before anything slow
    source = fetched(args, terminal, options=checkpoint_options(args)) if args.source else None
    environment = None if source is None else environment_for(source, options=checkpoint_options(args))
    try:
        if environment is not None and environment.is_installed():
            run_in(environment, args, source)
        with terminal.phases() as phases, phases.asides():
            phases("check the files")
            check_files(bundle)
            dataset = open_dataset(Path(args.dataset))
            document, lines = _replay(args, bundle, dataset, source, phases)
    except NeedsEnvironment as error:  # a factory asked for it
        if not error.environment.is_installed():
            raise
        run_in(error.environment, args, source)
    terminal.show(document, lambda console: _print(console, document, lines))


def _replay(args, bundle, dataset, source, phases) -> tuple[dict, list[str]]:
    """The document, and lines that a person reads below the table."""
    phases("load the compiler")
    from vlacompile.episodes.differences import dimensions
    from vlacompile.episodes.observations import Filling, action_names, chosen
    from vlacompile.episodes.picture import picture
    from vlacompile.episodes.replay import consumption_text, replay_episodes
    from vlart.files.atomic import write_whole

    Filling.of(bundle, dataset)  # what does not fit is said before a policy is loaded
    episodes, policy = chosen(dataset, args.episode), None
    if source is not None:
        phases("load the policy")
        from vlacompile.episodes.reference_policy import ReferencePolicy
        from vlacompile.phases.load_policy import load_policy

        loaded = load_policy(source, options=checkpoint_options(args))
        policy = ReferencePolicy(loaded, bundle.plan, " ".join(args.source))
    found = replay_episodes(bundle, policy, dataset, episodes, args.every, phases, backbone=args.backbone,
                            threads=args.threads, stand_in=args.stand_in, native_code=args.native_code)
    names, consumption = action_names(dataset, bundle.plan.action.action_dim), consumption_text(bundle.plan.action)
    out = Path(args.picture or f"{Path(args.bundle).resolve().stem}-episodes.svg")
    phases("draw the picture")
    write_whole(out, picture(f"{bundle.plan.name} ({bundle.plan.recipe}) on recorded episodes", found, names,
                            dataset.fps, consumption).encode())
    count = len(dataset.episodes)
    lines = [f"{len(found)} of {count} episodes, {sum(len(e.recorded) for e in found)} frames; "
             f"{sum(len(e.inferred) for e in found)} chunks for the first actions,",
             f"{sum(len(e.replans) for e in found)} replans for the executed ones ({consumption})"]
    return {
        "bundle": str(bundle.path), "dataset": args.dataset, "episodes_in_dataset": count, "fps": dataset.fps,
        "policy": " ".join(args.source) or None, "every": args.every, "consumption": consumption,
        "stand_in": args.stand_in, "picture": str(out),
        "dimensions": [asdict(d) for d in dimensions(found, names, dataset.fps)],
        "episodes": [_episode(e) for e in found],
    }, lines


def _episode(e) -> dict:
    def actions(of) -> dict | None:
        return None if of is None else {"first": of.first.tolist(), "executed": of.executed.tolist()}

    return {"episode": e.index, "task": e.task, "frames": len(e.recorded), "inferred": list(e.inferred),
            "replans": list(e.replans), "recorded": e.recorded.tolist(), "bundle": actions(e.bundle),
            "policy": actions(e.policy), "refused": [{"frame": frame, "why": why} for frame, why in e.refused]}


def _print(console: Console, document: dict, lines: list[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    with_policy = document["policy"] is not None
    table.add_column("action", overflow="fold")
    table.add_column("spread", justify="right", no_wrap=True)
    titles = (["bundle - PyTorch"] if with_policy else []) + ["bundle - recorded"]
    titles += ["PyTorch - recorded"] if with_policy else []
    for title in titles:
        table.add_column(f"{title}\nfirst / executed", justify="right")
    keys = ("bundle_policy", "bundle_recorded", "policy_recorded") if with_policy else ("bundle_recorded",)
    for d in document["dimensions"]:
        table.add_row(d["name"], f"{d['spread']:.3g}", *(
            f"{_share(d['first'][key])} / {_share(d['executed'][key])}" for key in keys))
    console.print(table)
    console.print("\nmean absolute differences, in units of the spread of the recorded actions")
    if with_policy:
        apart = [(*d["worst"], d["name"]) for d in document["dimensions"] if d["worst"] and d["worst"][0] > 0]
        if apart:
            most, episode, frame, name = max(apart)
            console.print(f"bundle and PyTorch are furthest apart at frame {frame} of episode {episode}, by {most:.2g} "
                          f'in "{name}"', soft_wrap=True)
    else:
        console.print("no PyTorch: --source SOURCE, what the bundle was built from, adds it; until\nthen a difference "
                      "may be the policy's own as well as the bundle's")
    _print_smooth(console, document["dimensions"])
    for line in lines:
        console.print(line, soft_wrap=True)
    _print_refused(console, document["episodes"])
    if document["stand_in"]:
        console.print(STAND_IN)
    console.print(f"picture  {document['picture']}", soft_wrap=True)


def _print_smooth(console: Console, dimensions: list[dict]) -> None:
    """Medians over the dimensions."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("executed actions of", "jerk, 1/s^3", "jump into a chunk", "other steps"):
        table.add_column(title, justify="left" if title.endswith("of") else "right")
    words = {"bundle": "the bundle", "policy": "PyTorch", "recorded": "the recording"}
    for whose in dimensions[0]["smooth"] if dimensions else ():
        rows = [d["smooth"][whose] for d in dimensions]
        known = {key: [r[key] for r in rows if r[key] is not None] for key in ("jerk", "jump", "step")}
        table.add_row(words[whose], *(_share(median(v) if v else None) for v in known.values()))
    console.print()
    console.print(table)
    console.print("medians over the dimensions, in units of the spread", soft_wrap=True)


def _print_refused(console: Console, episodes: list[dict]) -> None:
    refused = [(e["episode"], r["frame"], r["why"]) for e in episodes for r in e["refused"]]
    if refused:
        console.print(f"the runtime refused {len(refused)} chunks:", style="bold red")
    for episode, frame, why in refused[:REFUSED]:
        console.print(f"  episode {episode}, frame {frame}: {why}", soft_wrap=True)
    if len(refused) > REFUSED:
        console.print(f"  ... {len(refused) - REFUSED} more")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
