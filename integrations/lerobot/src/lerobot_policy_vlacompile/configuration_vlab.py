"""The configuration of the policy type "vlab": the bundle's path and options; the features are read from the plan."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

from vlart.bundle.directory import one_backbone, read_bundle
from vlart.errors import ConfigError, nearest
from vlart.serve.observations import Input, inputs_of

ENVIRONMENT, NOISE = "observation.environment_state", ("normal", "uniform")


@PreTrainedConfig.register_subclass("vlab")
@dataclass
class VlabConfig(PreTrainedConfig):
    """bundle: NAME.vlab. rename_map: {the robot's name: the bundle's name} of observations, as LeRobot's own, which
    reaches only policies that were loaded with --policy.path. checkpoint: LeRobot checkpoint directory whose tokenizer
    encodes the task; empty: the bundle's own tokenizer, or a policy without instructions. threads: of the inference
    engine, 0: its own choice. noise: "normal" or "uniform", the initial noise of a sampling policy; seed: its random
    seed, or None. backbone: which one to use if the bundle has several; empty: the first. signers: take only a bundle
    that one of these signed (ssh-keygen's allowed signers). keep_engines: with signers, take the engines that this
    board's vlart-build made, which no signature binds. native_code: load its stages of machine code (TVM) although no
    signer vouches for them. Raises ConfigError, and BundleError if `bundle` is not a bundle, or not as it was
    signed."""

    bundle: str = ""
    rename_map: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    threads: int = 0
    backbone: str = ""
    noise: str = "normal"
    seed: int | None = None
    signers: str = ""
    keep_engines: bool = False
    native_code: bool = False
    device: str | None = "cpu"  # of LeRobot's tensors; the bundle runs on the target that it was compiled for
    push_to_hub: bool = False
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=dict)  # the bundle normalises

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bundle:
            raise ConfigError("the policy type vlab needs a bundle", where="--policy.bundle", why="it was not given",
                              fix="--policy.bundle=NAME.vlab")
        if self.noise not in NOISE:
            raise ConfigError(f'"{self.noise}" is not a kind of noise', where="--policy.noise",
                              why=nearest(self.noise, NOISE), fix="choose one of them")
        plan = one_backbone(read_bundle(self.bundle), self.backbone or None).plan
        if plan.action is None:
            raise ConfigError("this bundle has no actions", where=self.bundle, why="its plan has no action queue",
                              fix="compile a policy that returns [1,H,action_dim]")
        inputs, named = inputs_of(plan), {theirs: ours for ours, theirs in self.rename_map.items()}
        unknown = next((n for n in named if n not in inputs), None)
        if unknown is not None:
            raise ConfigError(f'the bundle has no input "{unknown}"', where="--policy.rename_map",
                              why=nearest(unknown, inputs), fix="map the robot's names to the bundle's")
        # Under the robot's names, which LeRobot compares with the robot's cameras before it starts.
        self.input_features = {named.get(n, n): f for n, i in inputs.items() if (f := feature_of(i)) is not None}
        self.output_features = {"action": PolicyFeature(FeatureType.ACTION, (plan.action.action_dim,))}

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self):
        raise not_trained(self.bundle)

    def get_scheduler_preset(self):
        raise not_trained(self.bundle)

    def validate_features(self) -> None:
        """Nothing to validate: the features come from the plan."""

    def set_dataset_feature_metadata(self, features: dict[str, Any]) -> None:
        """LeRobot calls it with the features of a dataset that it records to or evaluates on. Raises ConfigError if
        its joints have another order than the policy was trained with, where the bundle knows that."""
        trained = joint_names(self.bundle)
        for name in ("observation.state", "action"):
            given = (features.get(name) or {}).get("names")
            if trained and isinstance(given, list) and set(given) == set(trained) and given != trained:
                raise ConfigError(f"{name} has another order than the policy was trained with", where=self.bundle,
                                  why=f"{', '.join(given)}; trained with {', '.join(trained)}",
                                  fix="give the robot's joints the order of the training's dataset")


def joint_names(bundle: str) -> list[str]:
    """The joints in the order of the action, if the checkpoint's files named them; []: they did not."""
    origin = read_bundle(bundle).manifest["provenance"].get("origin") or {}
    return origin["joints"].split(", ") if "joints" in origin else []


def feature_of(wanted: Input) -> PolicyFeature | None:
    """None: not an observation in LeRobot (tokens, noise)."""
    if wanted.update not in ("observation", "tick"):
        return None
    if wanted.is_image():
        _, height, width, channels = wanted.dims
        return PolicyFeature(FeatureType.VISUAL, (channels, height, width))
    if wanted.dtype != "f32":
        return None
    return PolicyFeature(FeatureType.ENV if wanted.name == ENVIRONMENT else FeatureType.STATE, tuple(wanted.dims[1:]))


def not_trained(bundle: str) -> ConfigError:
    return ConfigError("a bundle cannot be trained", where=bundle, why="its weights are compiled",
                       fix="train the checkpoint, then compile it again")
