"""Which layers a precision is chosen for, and which of the recipe's rules apply. Decided by graphs, never by names.

A layer that touches actions keeps the base precision unless a rule names it: its rounding errors reach the robot, or
the state of the denoising loop, directly. So does a layer whose weight and work are too small to gain anything. If this
protects every layer of a policy although the recipe names a scheme, protection is lifted (LIFTED): first for small
layers, then for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch.fx import Node

from vlacompile.compiler.precision.quantise.layers import KINDS, Layer, layers_of
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe
from vlart.errors import ConfigError, nearest
from vlart.vocabulary import SCHEMES

# Quantising a layer with fewer weights and less work than this gains nothing: 4096 weights are 16 KB, 1 MFLOP is 5 us.
SMALL_WEIGHTS, SMALL_FLOPS = 4096, 1_000_000
# 4-bit blocks lie along the rows of a linear layer or an embedding; no engine has 4-bit convolutions.
ADMITS = {"linear": ("fp32", "fp16", "int8", "int4"), "conv": ("fp32", "fp16", "int8"),
          "embedding": ("fp32", "fp16", "int8", "int4")}

LIFTED = (0, 1, 2)  # protection of: nothing lifted; small layers; also layers that touch actions

Key = tuple[str, str]  # stage, node


def admits(layer: Layer, backend: str) -> tuple[str, ...]:
    """The schemes that the engine has for a layer. TensorRT (RTX 1.7.1 for SM86) has no int8 kernel for depthwise
    convolutions: it stores a weight per pixel, 3 MB for 66 KB in an encoder of 128 pixels."""
    found = ADMITS[layer.kind]
    return tuple(s for s in found if s != "int8") if layer.depthwise and backend == "tensorrt" else found


@dataclass(frozen=True)
class Choice:
    """The scheme of one layer before the search. scheme: a scheme, or "auto". decided: "rule" or "default"
    (vocabulary.DECIDERS). rule: number of the rule, from 1; 0: none. why: the reason why a layer keeps the base."""

    layer: Layer
    scheme: str
    decided: str
    rule: int = 0
    why: str = ""


def choices(staged: Staged, recipe: PrecisionRecipe, backend: str = "onnxruntime",
            lifted: int = 0) -> tuple[Choice, ...]:
    """One per layer, in the order of the stages. lifted: one of LIFTED. Raises ConfigError for a rule that applies to
    no layer."""
    layers = [layer for s in staged.stages for layer in layers_of(s)]
    kept = protected(staged, lifted)
    ruled = _ruled(layers, recipe, backend)
    found = []
    for layer in layers:
        key = (layer.stage, layer.node)
        rule, why = 0, ""
        if key in ruled:
            rule, decided = ruled[key], "rule"
            scheme = recipe.rule[rule - 1].scheme
        elif key in kept:
            scheme, decided, why = recipe.base, "default", kept[key]
        else:
            scheme, decided = recipe.layers, "default"
        if scheme != AUTO and scheme not in admits(layer, backend):
            scheme, decided, rule, why = recipe.base, "default", 0, f"no kernel for {_a(layer)} in {scheme}"
        found.append(Choice(layer, scheme, decided, rule, why))
    return tuple(found)


def _a(layer: Layer) -> str:
    conv = "a depthwise convolution" if layer.depthwise else "a convolution"
    return {"linear": "a linear layer", "conv": conv, "embedding": "an embedding"}[layer.kind]


def names_of(layer: Layer) -> tuple[str, str, str]:
    """Names that a rule's pattern may match: the block with its stage, the weight with its stage, the weight."""
    weight = layer.weight.replace("__", ".")
    return layer.group, f"{layer.stage}/{weight}", weight


def _ruled(layers: Sequence[Layer], recipe: PrecisionRecipe, backend: str) -> dict[Key, int]:
    """{(stage, node): number of the last rule that matches}"""
    found: dict[Key, int] = {}
    for i, rule in enumerate(recipe.rule, 1):
        matching = [x for x in layers if any(fnmatchcase(n, rule.layers) for n in names_of(x))]
        able = [x for x in matching if rule.scheme == AUTO or rule.scheme in admits(x, backend)]
        if not able:
            where = f"precision.rule {i} of {len(recipe.rule)}"
            if matching:
                raise ConfigError(f'"{rule.layers}" cannot be {rule.scheme}', where=where,
                                  why=f"it matches only {_a(matching[0])}, in {matching[0].group}",
                                  fix=f"choose one of {', '.join(admits(matching[0], backend))}")
            raise ConfigError(f'"{rule.layers}" matches no layer', where=where, why=_near(rule.layers, layers),
                              fix="`vlacompile plan SOURCE` shows the stages; "
                                  "* and ? in patterns work as in file names")
        found |= {(x.stage, x.node): i for x in able}
    return found


def _near(pattern: str, layers: Sequence[Layer]) -> str:
    groups = {x.group for x in layers}
    plain = pattern.replace("*", "")
    if len(groups) > 6 and nearest(plain, groups).startswith("known"):
        return f"{len(groups)} are known, among them: {', '.join(sorted(groups)[:4])}"
    return nearest(plain, groups)


def protected(staged: Staged, lifted: int = 0) -> dict[Key, str]:
    """{(stage, node): reason} of layers that keep the base precision unless a rule names them."""
    if lifted == LIFTED[-1]:
        return {}
    touching = _Touching(staged)
    found: dict[Key, str] = {}
    for stage in staged.stages:
        layers = layers_of(stage)
        why: dict[str, str] = {}  # by weight: if a layer runs several times, one of its uses decides
        for layer in layers:
            reason = touching.why.get((layer.stage, layer.node))
            if reason is None and not lifted and layer.weights < SMALL_WEIGHTS and layer.flops < SMALL_FLOPS:
                reason = "small"
            if reason is not None:
                why.setdefault(layer.weight, reason)
        found |= {(x.stage, x.node): why[x.weight] for x in layers if x.weight in why}
    return found


class _Touching:
    """Layers with no other layer between them and an action: the noise that a loop starts from, its carried state, or
    an action. Values cross stages, loops and histories, so both directions are iterated to a fixed point."""

    def __init__(self, staged: Staged):
        self.staged = staged
        self.weights = {s.name: _weight_of(s) for s in staged.stages}
        self.why: dict[Key, str] = {}
        sources = staged.program.sources
        self.behind = {n for n, s in sources.items() if s.update == "step"}  # no layer between noise and value
        self.before = set(staged.program.actions)  # no layer between value and action
        size = -1
        while size != (size := len(self.behind) + len(self.before)):
            for stage in reversed(staged.stages):
                self._backward(stage)
            for stage in staged.stages:
                self._forward(stage)
            for value, delayed in staged.delays:
                self.behind |= {delayed} if value in self.behind else set()
                self.before |= {value} if delayed in self.before else set()

    def _forward(self, stage: StageGraph) -> None:
        reached: set[Node] = set()
        carried, weights = {c.input: c for c in stage.carries}, self.weights[stage.name]
        for i, (node, port) in enumerate(zip(_placeholders(stage), stage.inputs, strict=True)):
            if i in carried:  # a carried value that becomes the action counts as one from its first iteration on
                c = carried[i]
                hit = c.initial in self.behind or c.result in self.behind or c.result in self.before
            else:
                hit = port.value in self.behind
            reached |= {node} if hit else set()
        for node in stage.graph.nodes:
            if node.op != "call_function" or not any(n in reached for n in node.all_input_nodes):
                continue
            if node in weights:
                self.why.setdefault((stage.name, node.name), "reads noise or a loop's state")
            else:
                reached.add(node)
        self.behind |= {p.value for p, n in zip(stage.outputs, _outputs(stage), strict=True) if n in reached}

    def _backward(self, stage: StageGraph) -> None:
        ports = dict(zip(_placeholders(stage), stage.inputs, strict=True))
        nodes, weights = _outputs(stage), self.weights[stage.name]
        inputs = list(ports)
        for _ in range(1 + len(stage.carries)):  # a carried value is also an input of the next iteration
            reached = {n for p, n in zip(stage.outputs, nodes, strict=True) if p.value in self.before}
            reached |= {nodes[c.output] for c in stage.carries if inputs[c.input] in reached}
            for node in reversed(stage.graph.nodes):
                if node not in reached or node.op != "call_function":
                    continue
                if node in weights:
                    self.why.setdefault((stage.name, node.name), "writes actions or a loop's state")
                else:
                    reached |= set(node.all_input_nodes)
            for c in stage.carries:
                if inputs[c.input] in reached:
                    self.before |= {c.initial, c.result}
            self.before |= {p.value for n, p in ports.items() if n in reached and p.mode != "carry"}


def _placeholders(stage: StageGraph) -> list[Node]:
    return [n for n in stage.graph.nodes if n.op == "placeholder"]


def _outputs(stage: StageGraph) -> tuple[Node, ...]:
    return tuple(stage.graph.output_node().args[0])


def _weight_of(stage: StageGraph) -> Mapping[Node, Layer]:
    layers = {x.node: x for x in layers_of(stage)}
    return {n: layers[n.name] for n in stage.graph.nodes if n.name in layers}


assert set(ADMITS) == {kind for kind, _ in KINDS.values()} and all(set(s) <= set(SCHEMES) for s in ADMITS.values())
