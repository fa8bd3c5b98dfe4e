"""`vlacompile report BUNDLE -o report.html`."""

from __future__ import annotations

import json
from pathlib import Path

from vlacompile.cli.arguments import add_what_if, what_if
from vlacompile.cli.terminal import Terminal
from vlart.arguments import add_native_code

SUMMARY = "write an HTML report: stages, latency, memory, precision, parity"
DESCRIPTION = """Write a report about a bundle as one self-contained HTML page: the stage graph
with its rates, what each input causes to be recomputed, what was hoisted and
constant-folded, latency and memory on boards (modelled) and here (measured
before with `vlacompile profile --measure`), precision, parity and provenance.
Its golden frames are replayed unless --no-replay is given."""
EPILOG = """examples:
  vlacompile report light.vlab -o light.html
  vlacompile report light.vlab -t orin-nano-8gb@15w -o light.html
  vlacompile report light.vlab --profile mine.json -o light.html
  vlacompile report nano.vlab --check rtx.json -o nano.html
  vlacompile report light.vlab --routing routing.json -o light.html

next: open it in a browser, or print it"""
BOARDS = ("orin-nano-8gb", "orin-nx-16gb", "agx-orin-64gb")


def add_arguments(parser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a NAME.vlab directory")
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help="the HTML page to write")
    parser.add_argument("--profile", action="append", default=[], metavar="FILE",
                        help="latencies of this bundle saved by `vlacompile profile --measure -o` or "
                             "`vlart-run --profile`: a file, or a folder of them; may be repeated")
    parser.add_argument("--check", metavar="FILE",
                        help="the record of this bundle that `vlacompile check --record FILE` wrote")
    parser.add_argument("--routing", metavar="FILE",
                        help="a table that `vlacompile route fit` wrote: adds its posteriors and decisions")
    parser.add_argument("--backbone", metavar="NAME",
                        help="which backbone to use, if there are several (default: the first)")
    parser.add_argument("--no-replay", action="store_true", help="do not replay the golden frames")
    add_native_code(parser)
    add_what_if(parser)


def run(args, terminal: Terminal) -> None:
    from vlacompile.profile.measure import read_of
    from vlart.bundle.directory import GOLDEN_FILE, one_backbone, read_bundle
    from vlart.errors import ConfigError, RuntimeFailure

    args.target = args.target or list(BOARDS)
    whole = read_bundle(args.bundle)
    bundle = one_backbone(whole, args.backbone)
    profiles = [read_of(Path(p), bundle) for p in args.profile]
    for path, profile in zip(args.profile, profiles, strict=True):
        if profile.hash != bundle.hash:
            raise ConfigError("the profile is of another bundle", where=path,
                              why=f"they were measured on {profile.hash[:16]}..., this one is {bundle.hash[:16]}...",
                              fix=f"`vlacompile profile {args.bundle} --measure -o {path}`")
    check = _read_check(args.check, bundle) if args.check else None
    from vlacompile.routing.table import read_table

    routing = read_table(args.routing) if args.routing else None
    with terminal.phases() as phases:
        phases("model the latency on boards")
        from vlacompile.profile.kernel_work import work_of
        from vlacompile.profile.modelled_bundle import modelled_for
        from vlacompile.profile.modelled_lengths import modelled_lengths
        from vlacompile.report.page import page, write_page

        found, parity = modelled_for(bundle, args.target, what_if(args)), None
        if not args.no_replay:
            phases("replay the golden frames")
            from vlart.verify.frames import read_frames
            from vlart.verify.replay import replay

            try:
                parity = replay(bundle.path, read_frames(bundle.path / GOLDEN_FILE),
                                tuple(bundle.manifest["provenance"]["outputs"]),
                                stand_in=any(s.backend == "tensorrt" for s in bundle.plan.stages),
                                native_code=args.native_code)
            except RuntimeFailure as error:  # for example, a stage compiled for another machine
                raise RuntimeFailure(error.what, where=error.where, why=error.why, status=error.status,
                                     fix=f"write the report with --no-replay, or: {error.fix}") from error
        phases("write the page")
        text = page(bundle, work_of(bundle), found["boards"], found["targets"], profiles, parity, check,
                    routing, found["else"], lengths=modelled_lengths(whole))
        write_page(text, Path(args.out))
    size = len(text.encode())
    terminal.show({"report": args.out, "bytes": size, "passed": None if parity is None else parity.passed},
                  lambda console: console.print(f"{args.out}  {size / 1e3:.0f} kB", soft_wrap=True))
    if parity is not None:
        parity.require()


def _read_check(path: str, bundle) -> dict:
    """Raises BundleError if the file is not a check record, ConfigError if it is of another bundle."""
    from vlart.errors import BundleError, ConfigError

    fix = f"`vlacompile check --tensorrt {bundle.path} --record {path}`"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        stages = [s["stage"] for s in found["stages"]]
        label, planned = found["label"], [s["build"]["weight_bytes"] for s in found["stages"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError("the check record cannot be read", where=path, why=f"{type(error).__name__}: {error}",
                          fix=fix) from error
    builds = {s.name: s.build.weight_bytes for s in bundle.plan.stages if s.build is not None}
    if dict(zip(stages, planned, strict=True)) != builds or not isinstance(label, str):
        raise ConfigError("the check record is of another bundle", where=path,
                          why=f"it has the stages {', '.join(stages) or 'none'}", fix=fix)
    return found
