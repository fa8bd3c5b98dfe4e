"""The configuration of the policy type "vlab": the bundle's path and options; the features are read from the plan."""

from dataclasses import dataclass, field

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

from vlacompile.bundle.directory import one_backbone, read_bundle
from vlacompile.errors import ConfigError, nearest
from vlacompile.serve.observations import Input, inputs_of

ENVIRONMENT, NOISE = "observation.environment_state", ("normal", "uniform")


@PreTrainedConfig.register_subclass("vlab")
@dataclass
class VlabConfig(PreTrainedConfig):
    """bundle: NAME.vlab. checkpoint: LeRobot checkpoint directory whose tokenizer encodes the task; empty: the bundle's
    own tokenizer, or a policy without instructions. threads: of the inference engine, 0: its own choice. noise:
    "normal" or "uniform", the initial noise of a sampling policy; seed: its random seed, or None. backbone: which one
    to use if the bundle has several; empty: the first. Raises ConfigError, and BundleError if `bundle` is not a
    bundle."""

    bundle: str = ""
    checkpoint: str = ""
    threads: int = 0
    backbone: str = ""
    noise: str = "normal"
    seed: int | None = None
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
        self.input_features = {n: f for n, i in inputs_of(plan).items() if (f := feature_of(i)) is not None}
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
        raise _not_trained(self.bundle)

    def get_scheduler_preset(self):
        raise _not_trained(self.bundle)

    def validate_features(self) -> None:
        """Nothing to validate: the features come from the plan."""


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


def _not_trained(bundle: str) -> ConfigError:
    return ConfigError("a bundle cannot be trained", where=bundle, why="its weights are compiled",
                       fix="train the checkpoint, then compile it again")
