"""A LoRA adapter that LeRobot's training wrote with PEFT, merged with the policy that it was trained on.

`adapter_config.json` names that policy and says how the updates are scaled; `adapter_model.safetensors` has the two
factors of each update, and whole tensors of what was trained without them. An update of a linear layer is added to its
weight, as peft's `merge_and_unload` does (Hu et al. 2021, arXiv 2106.09685); in fp32, whatever the policy was trained
in. What else PEFT can train is refused by name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends import hub
from vlacompile.frontends.finite_numbers import finite_numbers
from vlacompile.frontends.lerobot.files import ADAPTER, ADAPTER_CONFIG, WEIGHTS, read_json, read_tensors, require_real
from vlacompile.frontends.lerobot.layer_patterns import EndlessPatternError, matching
from vlart.errors import SourceError

_PREFIX = "base_model.model."  # of peft's names, before the policy's
_FACTORS = re.compile(r"(.+)\.lora_(embedding_)?(A|B)(?:\.(weight|bias))?")
# Keys that determine what is merged, and those that only concern the training or say again what the tensors show.
_READ = frozenset({"base_model_name_or_path", "revision", "peft_type", "r", "lora_alpha", "rank_pattern",
                   "alpha_pattern", "use_rslora", "init_lora_weights"})
_FOR_TRAINING = frozenset({
    "auto_mapping", "bias", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save",
    "peft_version", "qalora_group_size", "runtime_config", "target_modules", "task_type"})
# Ways to begin that leave the policy's own weights as they are; others (PiSSA, OLoRA, LoftQ) move a part of them into
# the factors when the adapter is loaded.
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """path: its directory. base, revision: the policy that it was trained on, as the training named it. config: of
    adapter_config.json."""

    path: Path
    base: str
    revision: str | None
    config: Mapping

    def scales(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """{layer: the factor of its update}. ranks: {layer: rank of its factors}. Raises SourceError if one has another
        rank than the configuration says."""
        said = self._by_pattern("rank_pattern", ranks, self.config.get("r", 8))
        wrong = next((n for n, rank in ranks.items() if said[n] != rank), None)
        if wrong is not None:
            raise _damaged(self.path, f"{wrong}: its factors have rank {ranks[wrong]}, {ADAPTER_CONFIG} says "
                           f"{said[wrong]}")
        alphas = self._by_pattern("alpha_pattern", ranks, self.config.get("lora_alpha", 8))
        root = math.sqrt if self.config.get("use_rslora") else float
        return {name: alphas[name] / root(rank) for name, rank in ranks.items()}

    def _by_pattern(self, key: str, layers: Iterable[str], otherwise: float) -> dict[str, float]:
        """peft's rule: the first pattern that matches the layer's name, or a dotted end of it."""
        found: dict[str, float] = {}
        for pattern, value in (self.config.get(key) or {}).items():
            found = dict.fromkeys(self.matched(rf"(.*\.)?({pattern})", layers), value) | found
        return {name: found.get(name, otherwise) for name in layers}

    def matched(self, pattern: str, layers: Iterable[str]) -> frozenset[str]:
        """Raises SourceError for a pattern that cannot be matched in a reasonable time."""
        try:
            return matching(pattern, layers)
        except EndlessPatternError as error:
            raise SourceError("a pattern of layers takes too long", where=str(self.path / ADAPTER_CONFIG),
                              why=f'"{pattern}" was not matched with the names of layers {error}: its repetitions can '
                                  "divide a name in too many ways",
                              fix="write it without a repetition inside a repetition, or as a list of names") from error


@dataclass(frozen=True)
class Base:
    """The policy that an adapter is merged with. origin: for the manifest, "org/name@commit" or the weights' digest."""

    path: Path
    origin: str


def read_adapter(path: Path, config: Mapping) -> Adapter | None:
    """None: the directory holds a whole policy. config: of its config.json. Raises SourceError for an adapter that is
    incomplete or of another kind."""
    whole, adapted = (path / WEIGHTS).is_file(), (path / ADAPTER_CONFIG).is_file()
    if whole and not (adapted and config.get("use_peft")):
        return None
    if not adapted:
        if (path / ADAPTER).is_file():
            raise _damaged(path, f"{ADAPTER_CONFIG} is missing, which names the policy that it was trained on")
        return None
    found = read_json(path / ADAPTER_CONFIG)
    _check_kind(path, found)
    _check_values(path, found)
    base = found.get("base_model_name_or_path")
    if not base:
        raise _damaged(path, f"{ADAPTER_CONFIG} does not say on which policy it was trained")
    return Adapter(path, str(base), found.get("revision"), found)


def _check_kind(path: Path, config: Mapping) -> None:
    kind = str(config.get("peft_type", "none"))
    odd = sorted(k for k, v in config.items() if k not in _READ | _FOR_TRAINING and v not in (None, False, [], {}, ""))
    if kind.upper() != "LORA":
        why = f"it is of PEFT's method {kind}"
    elif config.get("init_lora_weights", True) not in _BEGINNINGS:
        why = (f'init_lora_weights = "{config["init_lora_weights"]}" changes the weights of the policy that it was '
               "trained on")
    elif odd:
        why = f"{odd[0]} = {config[odd[0]]!r} changes what is added to the weights, or when"
    else:
        return
    raise SourceError("this kind of adapter is not merged", where=str(path / ADAPTER_CONFIG), why=why,
                      fix="merge it with peft (PeftModel.from_pretrained(policy, this directory).merge_and_unload()), "
                          "save the result with save_pretrained, and copy the policy_*processor* files beside it")


def _check_values(path: Path, config: Mapping) -> None:
    """Raises SourceError for values from which no update can be computed."""
    def is_pattern(value: object) -> bool:
        return not value or (isinstance(value, dict) and finite_numbers(list(value.values())) is not None
                             and all(map(is_expression, value)))

    def is_expression(text: object) -> bool:
        try:
            return isinstance(text, str) and re.compile(text) is not None
        except re.error:
            return False

    targets = config.get("target_modules")
    fits = {k: finite_numbers([config.get(k, 8)]) is not None for k in ("r", "lora_alpha")}
    fits |= {k: is_pattern(config.get(k)) for k in ("rank_pattern", "alpha_pattern")}
    fits["target_modules"] = targets is None or is_expression(targets) or (
        isinstance(targets, list) and all(isinstance(t, str) for t in targets))
    wrong = [k for k, holds in fits.items() if not holds]
    if wrong:
        raise SourceError("the adapter's settings cannot be read", where=str(path / ADAPTER_CONFIG),
                          why=f"{wrong[0]} = {config.get(wrong[0])!r} is not understood; which layers the adapter "
                          "changes, and by how much, follows from it",
                          fix="copy the complete directory that the training wrote (…/pretrained_model)")


def base_of(adapter: Adapter, kind: str) -> Base:
    """The policy's directory: a path, from here or from the adapter's directory, or a name on the Hub, which is then
    fetched. kind: the type that it must be of. Raises SourceError."""
    beside = [Path(adapter.base), adapter.path / adapter.base]
    path = next((p for p in beside if (p / "config.json").is_file()), None)
    if path is None:
        path = _from_hub(adapter)
    found = read_json(path / "config.json").get("type")
    if found != kind or not (path / WEIGHTS).is_file():
        raise SourceError(f"{adapter.base} is not the policy that the adapter was trained on",
                          where=str(adapter.path / ADAPTER_CONFIG),
                          why=f'it is of type "{found}", the adapter of type "{kind}"' if found != kind else
                          f"{path} has no {WEIGHTS}", fix='correct "base_model_name_or_path" there')
    require_real(path / WEIGHTS)
    name = hub.name_of(path)
    return Base(path, str(name) if name is not None else f"{WEIGHTS} with sha256 {_digest(path / WEIGHTS)}")


def _from_hub(adapter: Adapter) -> Path:
    name = hub.HubName.parse(adapter.base)
    if name is None:
        raise SourceError("the policy that the adapter was trained on is not here", where=str(adapter.path),
                          why=f"{ADAPTER_CONFIG} names {adapter.base}: no such directory with a config.json",
                          fix=f'copy it there, or write where it is into "base_model_name_or_path" of {ADAPTER_CONFIG}')
    if name.revision is None and adapter.revision is not None:
        name = hub.HubName(name.repository, adapter.revision)
    try:
        return hub.fetch(name, lambda path: True, lambda line: None)
    except SourceError as error:
        raise SourceError(f"the policy that the adapter was trained on, {adapter.base}, is not here",
                          where=str(adapter.path / ADAPTER_CONFIG), why=f"{error.what}: {error.why}",
                          fix='write a directory with it into "base_model_name_or_path" there; or of the Hub: '
                              f"{error.fix}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def merge(policy: nn.Module, adapter: Adapter) -> None:
    """Changes the policy's weights, in fp32. Raises SourceError if the adapter does not fit the policy."""
    updates, whole = _parts(adapter, read_tensors(adapter.path / ADAPTER))
    own, modules = policy.state_dict(), dict(policy.named_modules())
    unknown = next((n for n in updates if n not in modules), None)
    if unknown is not None:
        raise _unfit(adapter, f"it has no layer {unknown}")
    _check_complete(adapter, modules, updates, whole)
    with torch.no_grad():
        for name, tensor in whole.items():
            if name not in own or own[name].shape != tensor.shape:
                raise _unfit(adapter, f"{name} {list(tensor.shape)} is no weight of it")
            own[name].copy_(tensor)
        scales = adapter.scales({name: _rank(factors) for name, factors in updates.items()})
        for name, factors in updates.items():
            module, scale = modules[name], scales[name]
            _check_own(adapter, policy, name, module)
            change = scale * _product(adapter, name, module, factors)
            if change.shape != module.weight.shape:
                raise _unfit(adapter, f"{name}: the update is {list(change.shape)}, the weight "
                             f"{list(module.weight.shape)}")
            module.weight.add_(change)
            if "bias" in factors:
                if getattr(module, "bias", None) is None:
                    raise _unfit(adapter, f"{name} has no bias, but an update of one")
                module.bias.add_(scale * factors["bias"].float())


Factors = dict[str, torch.Tensor]  # "A", "B", "embedding_A", "embedding_B", "bias"


def _parts(adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Factors], Factors]:
    """({layer: its factors}, {weight: what replaces it}), by the policy's names."""
    updates: dict[str, Factors] = {}
    whole: Factors = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        found = _FACTORS.fullmatch(name)
        if found is not None and not (found[4] == "bias" and found[3] == "A"):
            updates.setdefault(found[1], {})["bias" if found[4] == "bias" else f"{found[2] or ''}{found[3]}"] = tensor
        elif "lora_" in name or not key.startswith(_PREFIX):
            raise _damaged(adapter.path, f'"{key}" is neither a factor of an update nor a weight')
        else:
            whole[name.replace(".base_layer.", ".")] = tensor
    for name, factors in updates.items():
        if factors.keys() - {"bias"} not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            raise _damaged(adapter.path, f"{name} has only the factors {', '.join(sorted(factors))}")
    return updates, whole


def _check_complete(adapter: Adapter, modules: Mapping[str, nn.Module], updates: Mapping[str, Factors],
                    whole: Factors) -> None:
    """Every layer that the configuration names must have its tensors: a file that was cut lacks some."""
    config = adapter.config
    targets = config.get("target_modules")
    if any(config.get(k) for k in ("exclude_modules", "layers_to_transform")) or targets == "all-linear":
        targets = None
    replaced = {name.rpartition(".")[0] for name in whole}
    layers = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Embedding)]
    named = _named(adapter, layers, targets)
    missing = [n for n in layers if n in named and n not in updates and n not in replaced]
    missing += [end for end in config.get("modules_to_save") or ()
                if not any(f".{end}." in f".{name}" for name in whole)]
    if missing:
        raise _damaged(adapter.path, f"{len(missing)} layers that {ADAPTER_CONFIG} names have no tensors: {missing[0]}")
    if not updates and not whole:
        raise _damaged(adapter.path, f"{ADAPTER} is empty")


def _named(adapter: Adapter, layers: list[str], targets: str | list[str] | None) -> frozenset[str]:
    """peft's rule: an expression for the whole name, or a list of ends of it."""
    if isinstance(targets, str):
        return adapter.matched(targets, layers)
    return frozenset(n for n in layers if any(n == t or n.endswith(f".{t}") for t in targets or ()))


def _check_own(adapter: Adapter, policy: nn.Module, name: str, module: nn.Module) -> None:
    """The layer must be of a kind whose update is a product of two matrices, and its weight its own."""
    kind = type(module)
    # its weight is read by the attention around it, which PEFT's layer is not asked for
    inside = kind.__name__ == "NonDynamicallyQuantizableLinear"
    grouped = isinstance(module, nn.Conv2d) and module.groups > 1
    if inside or grouped or not (isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d) or kind.__name__ == "Conv1D"):
        raise _unfit(adapter, f"{name} is a layer of type {kind.__name__}{' with groups' if grouped else ''}")
    named = [n for n, p in policy.named_parameters(remove_duplicate=False) if p is module.weight]
    if len(named) > 1:
        raise _unfit(adapter, f"the weight of {name} is also {next(n for n in named if n != name + '.weight')}")


def _rank(factors: Factors) -> int:
    return factors["A" if "A" in factors else "embedding_A"].shape[0]


def _product(adapter: Adapter, name: str, module: nn.Module, factors: Factors) -> torch.Tensor:
    """The update before it is scaled, in the weight's shape."""
    embedded = isinstance(module, nn.Embedding)
    if embedded != ("embedding_A" in factors):
        raise _unfit(adapter, f"{name} is a layer of type {type(module).__name__}")
    a, b = (factors[k].float() for k in (("embedding_A", "embedding_B") if embedded else ("A", "B")))
    if b.shape[1] != a.shape[0] or b.dim() != a.dim():
        raise _damaged(adapter.path, f"{name}: factors {list(a.shape)} and {list(b.shape)} have no product")
    product = torch.einsum("or,ri...->oi...", b.flatten(1), a)
    return product.T if embedded or type(module).__name__ == "Conv1D" else product  # those are [in, out]


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError("the adapter (LoRA) is not complete", where=str(path), why=why,
                       fix="copy the complete directory that the training wrote (…/pretrained_model)")


def _unfit(adapter: Adapter, why: str) -> SourceError:
    return SourceError("the adapter (LoRA) does not fit the policy that it names", where=str(adapter.path),
                       why=f"{adapter.base}: {why}",
                       fix='correct "base_model_name_or_path" or "revision" in adapter_config.json, or merge it with '
                           "peft")
