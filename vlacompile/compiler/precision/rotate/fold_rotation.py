"""A stage with a group of its values rotated: the same function, other constants, and products where values are turned
at run time. Owns the arithmetic, in f64. Must not know why a value is rotated.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.precision.rotate.channels import Channels
from vlacompile.compiler.precision.rotate.find_places import Places
from vlacompile.compiler.precision.rotate.orthogonal import Rotation
from vlacompile.compiler.staging.stages import StageGraph
from vlacompile.files.mapped import mapped

_ATEN = torch.ops.aten


def folded(stage: StageGraph, places: Places, rotation: Rotation) -> StageGraph:
    """rotation: of the group's size, one that keeps means if the group needs it. Names of nodes stay; new ones end in
    _turned or _restored, and in a number where a group before has such a one. Constants of `stage` are not modified,
    and new ones have the type of those that they replace."""
    assert rotation.size == places.size and (rotation.keeps_mean or not places.keeps_mean)
    return _Folder(stage, places, rotation).run()


class _Folder:
    def __init__(self, stage: StageGraph, places: Places, rotation: Rotation):
        self.stage, self.places, self.rotation = stage, places, rotation
        self.graph, self.copies, self.constants = Graph(), {}, dict(stage.constants)
        self.names = {n.name for n in stage.graph.nodes}
        self.turned: dict[Node, Node] = {}
        self.restored: dict[Node, Node] = {}

    def run(self) -> StageGraph:
        changed = {*self.places.reads, *self.places.writes}
        back = set(self.places.turned_back)
        for node in self.stage.graph.nodes:
            if node.op == "output":
                self.graph.output(tuple(self._read(node, n) for n in node.args[0]))
                continue
            args = self._of_layer(node) if node in changed else None
            copy = self.copies[node] = self.graph.node_copy(node, lambda n, user=node: self._read(user, n))
            assert copy.name == node.name or node.op == "get_attr", f"{node.name} became {copy.name}"
            if args is not None:
                copy.args = tuple(args.get(i, a) for i, a in enumerate([*copy.args, *[None] * (
                    max(args) + 1 - len(copy.args))]))
            if node in self.places.entered:
                self.turned[node] = self._turn(node, copy, self.places.entered[node])
            if node in back:
                self.restored[node] = self._turn_back(node, copy, self.places.values[node])
        for node in [n for n in self.graph.nodes if n.op == "get_attr" and not n.users]:
            self.graph.erase_node(node)
        read = {n.target for n in self.graph.nodes if n.op == "get_attr"}
        return replace(self.stage, graph=self.graph, constants={n: t for n, t in self.constants.items() if n in read})

    def _read(self, user: Node, node: Node) -> Node:
        edge = (user, node)
        if edge in self.places.leaves:
            return self.restored[node]
        if edge in self.places.enters:
            return self.turned[node]
        if edge in self.places.neutral:
            tensor = self.stage.constants[node.target]
            return self._constant(f"{user.name}_neutral", torch.full_like(tensor, self.places.neutral[edge]), tensor)
        if edge in self.places.constants:
            tensor = self.stage.constants[node.target]
            return self._constant(node.target, _along(tensor, self.places.constants[edge], self.rotation), tensor)
        return self.copies[node]

    def _constant(self, base: str, tensor: torch.Tensor, like: torch.Tensor) -> Node:
        name, i = f"{base}_rotated", 1
        while name in self.constants:
            i += 1
            name = f"{base}_rotated_{i}"
        self.constants[name] = mapped(tensor.to(like.dtype).contiguous())
        node = self.graph.get_attr(name)
        node.meta["val"] = torch.empty_like(tensor, dtype=torch.float32, device="meta")
        return node

    def _of_layer(self, node: Node) -> dict[int, Node]:
        """{position: new constant}"""
        if node.target is _ATEN.embedding.default:
            table = self.stage.constants[node.args[0].target]
            return {0: self._constant(node.args[0].target, _columns(table, self.places.writes[node], self.rotation),
                                      table)}
        old = self.stage.constants[node.args[1].target]
        weight, bias = old.double(), node.args[2] if len(node.args) > 2 else None
        constant = isinstance(bias, Node) and bias.op == "get_attr"
        added = self.stage.constants[bias.target].double() if constant else None
        read, written = self.places.reads.get(node), self.places.writes.get(node)
        if read is not None:
            if read.shift is not None:
                moved = weight @ read.shift
                added = moved if added is None else added + moved
            if read.gain is not None:
                weight = weight * read.gain
            weight = _columns(weight, read, self.rotation)
        if written is not None:
            if node in self.places.scaled:
                scale = self.stage.constants[self.places.scaled[node].target].double().flatten()
                weight, added = weight * scale[:, None], None if added is None else added * scale
            over = Channels(written.place.flatten(), written.vector.flatten(), written.size)
            weight = _columns(weight.movedim(0, -1), over, self.rotation).movedim(-1, 0)
            added = None if added is None else _columns(added, over, self.rotation)
        found = {1: self._constant(node.args[1].target, weight, old)}
        if added is not None:
            found[2] = self._constant(bias.target if constant else f"{node.name}_bias", added, old)
        return found

    def _turn(self, node: Node, copy: Node, channels: Channels) -> Node:
        """x R: a linear with the weight R^T, of all features or of each vector by itself."""
        if _in_order(channels):
            matrix, width = self.rotation.matrix(), channels.size
        else:
            width = channels.place.shape[-1]
            matrix = _columns(torch.eye(width, dtype=torch.float64), channels, self.rotation)
        return self._product(node, copy, matrix.T, None, width, "turned")

    def _turn_back(self, node: Node, copy: Node, channels: Channels) -> Node:
        """(z R^T) * gain + shift: a linear with the weight diag(gain) R."""
        if _in_order(channels) and channels.pure:
            return self._product(node, copy, self.rotation.matrix(), None, channels.size, "restored")
        width = channels.place.shape[-1]
        matrix = _columns(torch.eye(width, dtype=torch.float64), channels, self.rotation)
        matrix = matrix if channels.gain is None else channels.gain[:, None] * matrix
        return self._product(node, copy, matrix, channels.shift, width, "restored")

    def _product(self, node: Node, x: Node, weight: torch.Tensor, bias: torch.Tensor | None, width: int,
                 what: str) -> Node:
        like = next((t for t in self.stage.constants.values() if t.is_floating_point()), torch.empty(0))
        shape = [int(d) for d in node.meta["val"].shape]
        apart = width != shape[-1]
        if apart:
            x = self._emit(_ATEN.view.default, (x, [*shape[:-1], -1, width]), f"{node.name}_apart",
                           (*shape[:-1], shape[-1] // width, width))
        args = (x, self._constant(f"{node.name}_{what}", weight, like))
        args += () if bias is None else (self._constant(f"{node.name}_{what}_bias", bias, like),)
        x = self._emit(_ATEN.linear.default, args, f"{node.name}_{what}", x.meta["val"].shape)
        if apart:
            x = self._emit(_ATEN.view.default, (x, shape), f"{node.name}_together", shape)
        return x

    def _emit(self, target, args: tuple, base: str, shape) -> Node:
        name, i = base, 1
        while name in self.names:  # a value that another group turned, too
            i += 1
            name = f"{base}_{i}"
        self.names.add(name)
        node = self.graph.create_node("call_function", target, args, name=name)
        node.meta["val"] = torch.empty(tuple(shape), dtype=torch.float32, device="meta")
        return node


def _in_order(channels: Channels) -> bool:
    place, _ = channels.columns()
    return torch.equal(place, torch.arange(len(place)) % channels.size)


def _columns(x: torch.Tensor, channels: Channels, rotation: Rotation) -> torch.Tensor:
    """f64: rows of x, [...,features], with every vector multiplied by R."""
    indices = channels.indices()
    wide = x.double().clone()
    wide[..., indices] = rotation.right(wide[..., indices])
    return wide


def _along(x: torch.Tensor, channels: Channels, rotation: Rotation) -> torch.Tensor:
    """The same along the dimensions over which the channels lie."""
    axes = [a % x.dim() for a in channels.axes]
    rest = [d for d in range(x.dim()) if d not in axes]
    moved = x.permute(*rest, *axes)
    flat = Channels(channels.place.flatten(), channels.vector.flatten(), channels.size)
    turned = _columns(moved.reshape(*moved.shape[: len(rest)], -1), flat, rotation).reshape(moved.shape)
    return turned.permute(*(([*rest, *axes]).index(d) for d in range(x.dim())))
