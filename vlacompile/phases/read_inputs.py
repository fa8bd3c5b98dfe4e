"""Phase 1: reads and checks all inputs of a build: the policy, the recipe, the target, the instructions, the schedules.

Later phases read no file that a user named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from vlacompile.compiler.emit.tvm.schedules import Schedules, schedules_of
from vlacompile.compiler.emit.tvm.stage import PACKAGES
from vlacompile.compiler.staging.known_instructions import SpokenText, tokenize
from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.hardware.target import Target, load_target
from vlacompile.phases.calibrate import calibrated
from vlacompile.phases.load_policy import Several, fetch_sources, hub_revisions, load_policy
from vlacompile.phases.phase import Phase, Progress, phase
from vlacompile.policy.policy import Policy
from vlacompile.policy.text import check_instructions
from vlacompile.policy.text_buckets import with_text_lengths
from vlacompile.recipe.recipe import Recipe, load_recipe
from vlacompile.tokenize.compile_text import CompiledText, compile_text
from vlart.bundle.directory import check_destination
from vlart.errors import ConfigError
from vlart.runtime.library import openvino_library


@dataclass(frozen=True)
class Inputs:
    """recipe: with the settings that it leaves to the policy filled in. schedules: known ones of the
    stages that TVM compiles; None if it compiles none. out: destination of the bundle. texts: the policy's tokenizers
    as tables. spoken: instructions compiled in advance, as token ids; only_spoken: no other text is accepted. weights:
    False if the policy's weights have no content. hub: "org/name@commit" of what came from the Hugging Face Hub, per
    backbone, or under the policy's name. dataset: what the calibration set was taken from; empty if it is the policy's
    own."""

    policy: Policy
    target: Target
    recipe: Recipe
    schedules: Schedules | None = None
    out: Path = Path("policy.vlab")
    texts: tuple[CompiledText, ...] = ()
    spoken: tuple[SpokenText, ...] = ()
    only_spoken: bool = False
    weights: bool = True
    hub: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping = field(default_factory=dict)

    def text(self) -> str:
        """The policy's inputs and outputs, the target, and the recipe as resolved."""
        lines = [f'policy "{self.policy.name}"', *(f"  from {revision}" for revision in self.hub.values())]
        for name, source in self.policy.sources.items():
            tensor = self.policy.example_inputs[name]
            clock = "" if source.clock is None else f", {source.clock:g} Hz"
            history = "" if source.history == 1 else f", history of {source.history}"
            dtype = str(tensor.dtype).removeprefix("torch.")
            lines.append(f'  source "{name}" {dtype}{list(tensor.shape)}: {source.update}{clock}{history}')
        lines += [f"  {title}: {text}" for title, text in self.policy.origin.items()]
        lines += [f'  output "{name}"' for name in self.policy.outputs]
        lines += [f"  {text.note}" for text in self.texts]
        lines += [f'  instruction "{spoken.text}"' for spoken in self.spoken]
        lines += [f'target "{self.target.name}": stages run by {self.target.backend}', f'recipe "{self.recipe.name}"']
        return "\n".join([*lines, *_settings(asdict(self.recipe), "  ")]) + "\n"


def _settings(table: Mapping, indent: str) -> list[str]:
    """Nested settings, one per line, without those that are not set."""
    lines = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}", *_settings(value, indent + "  ")]
        elif value not in (None, (), "") and key != "name":
            lines.append(f"{indent}{key} = {value!r}")
    return lines


@phase(Phase.READ_INPUTS)
def read_inputs(source: Policy | str | Path | Several, target: str, recipe: str | None,
                out: str | Path | None = None, *, instructions: tuple[str, ...] = (),
                only_instructions: bool = False, calibrate: str | Path | None = None,
                topics: str | Path | None = None, weights: bool = True, options: CheckpointOptions = NONE,
                text_length: int | tuple[int, ...] | None = None, progress: Progress) -> Inputs:
    """source: a Policy, a checkpoint directory, "org/name" or "org/name@revision" on the Hugging Face Hub, or
    "package.module:factory". target, recipe: names or .toml paths. out: default: the policy's name + .vlab.
    calibrate: a LeRobot dataset directory, or a bag that `topics` maps to the inputs, whose observations take the place
    of the policy's calibration set. weights: False reads no weights. options: of a checkpoint. text_length: one, or
    several in one bundle; None: the recipe's. Raises a VlaError subclass."""
    where = load_target(target)
    wanted = load_recipe(recipe, where)
    if text_length is not None:
        several = text_length if isinstance(text_length, tuple) else (text_length,)
        wanted = replace(wanted, text=replace(wanted.text, length=several[0] if len(several) == 1 else None,
                                              lengths=several if len(several) > 1 else ()))
    require_engine(wanted.stages.engine, recipe)
    if out is not None:
        check_destination(Path(out))
    check_instructions(instructions)
    source = fetch_sources(source, weights, progress, options)
    progress("load the policy")
    policy = load_policy(source, weights, options)
    if wanted.text.wanted:
        progress(f"compare {', '.join(map(str, wanted.text.wanted))} tokens of text with all that it pads to")
        policy = with_text_lengths(policy, wanted.text.wanted, run=weights)
    to = Path(f"{policy.name}.vlab" if out is None else out)
    check_destination(to)
    texts = tuple(compile_text(name, text, progress) for name, text in policy.texts.items()
                  if weights and wanted.text.tokenize == "bundle")
    spoken = tokenize(instructions, texts, policy.example_inputs)
    dataset: Mapping = {}
    if calibrate is not None:
        policy, dataset = calibrated(policy, Path(calibrate), texts, progress,
                                     None if topics is None else Path(topics))
    schedules = None
    if wanted.stages.tvm:
        schedules = schedules_of(wanted.stages.tvm_schedules, recipe, where.processor, PACKAGES["apache-tvm"])
    revisions = {key or policy.name: revision for key, revision in hub_revisions(source).items()}
    return Inputs(policy, where, resolve(wanted, policy), schedules, to, texts, spoken, only_instructions, weights,
                  revisions, dataset)


def require_engine(engine: str | None, recipe: str | None) -> None:
    """Raises ConfigError for one that is not installed: the build replays the bundle."""
    if engine == "openvino" and openvino_library() is None:
        raise ConfigError("OpenVINO is not installed", where=f'recipe "{recipe}", stages.engine',
                          why="every stage is to run in it, and the build replays the bundle",
                          fix="pip install 'vlacompile[openvino]'")


def resolve(recipe: Recipe, policy: Policy) -> Recipe:
    """The recipe with the settings that it leaves to the policy filled in."""
    if policy.ensemble is not None and recipe.action.consume == "queue" and recipe.action.execute is None:
        recipe = replace(recipe, action=replace(recipe.action, consume="ensemble", decay=policy.ensemble))
    # how many of a queue's actions the policy executes says nothing of chunks that replace each other
    execute = {"ensemble": 1, "realtime": None}.get(recipe.action.consume, policy.execute)
    if recipe.action.execute is not None or execute is None:
        return recipe
    return replace(recipe, action=replace(recipe.action, execute=execute))
