"""Fast copies of networks, for inference: fewer passes over memory, the same function.

torch.fx (Reed et al., MLSys 2022) writes down what `forward` does, with loops unrolled;
a few rules then join what belongs together:

1. A 1x1 convolution of joined features is a sum of convolutions, so that nothing is
   joined. What is computed twice is computed once.
2. A scaling (a normalisation, a factor) behind a convolution becomes a part of it.
   ReLU(a s + b) of a sum s is a ReLU(s + b/a) where a is positive: b/a goes into the
   convolution that made the sum, a into those behind the ReLU. So does a factor.
3. A convolution adds, and rectifies, as it writes (`fused`).
4. What nothing else reads is written over.
5. Pictures are not rounded to half precision, nor what is computed from or for them.
6. Where the last layers have the largest maps of all, they run strip by strip.
"""

from __future__ import annotations

import copy
import logging
import math
import operator
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from srcli.models.base import SRModel
from srcli.models.fused import (
    FusedConv,
    align_channels,
    cut_strips,
    rectify,
    without_autocast,
)
from srcli.models.layers import Affine, JointConv, keeps_size

log = logging.getLogger(__name__)

_PICTURE = 4  # channels: what has at most so many is a picture
_WIDE = 256  # channels from which writing over the input costs no time
_SIDE = 4  # LR pixels of the picture that shows the sizes of all maps
_CONTEXT = 4  # LR rows around a strip that are computed for nothing, at most
_FURTHEST = 4096.0  # b/a of rule 2: far below fp16's largest value
# What else is known, and how many rows around it a result reads (None: not known here).
_KNOWN: dict[str, int | None] = {
    "add": 0, "sub": 0, "cat": 0, "zeroslike": 0, "rectify": 0, "alignchannels": 0,
    "prelu": 0, "sigmoid": 0, "silu": 0, "tanh": 0, "pixelshuffle": 0,
    "pixelunshuffle": 0, "interpolate": None, "upsample": None, "imresizetorch": None,
    "getattr": 0, "conv2d": None, "convtranspose2d": None, "pad": None,
}  # fmt: skip
_PASSED_ON = ("to", "float", "contiguous", "identity", "dropout")


@torch.no_grad()
def make_fast(model: SRModel, scale: int) -> SRModel:
    """A fast copy of a network for one scale, which can only infer.

    It has the weights and the recursion limit of now; its results are those of
    evaluation, but for rounding. A network that does what no rule knows comes back as
    it is, else a `FastModel`; neither is the network changed.
    """
    core = model.find_core()
    # Its own tensors, but other modules: some keep what they compute in themselves.
    tensors = (*core.parameters(), *core.buffers())
    core = copy.deepcopy(core, {id(tensor): tensor for tensor in tensors})
    if isinstance(core, SRModel):
        core = _AtScale(core, model.resolve_scale(scale))
    draft = _Draft(core, scale)
    wave = torch.arange(model.channels * _SIDE**2).sin()
    lr = (0.5 + 0.5 * wave.view(1, -1, _SIDE, _SIDE)).to(draft.like)
    try:
        with without_autocast(lr):
            wanted = draft.write(lr)
            draft.apply_rules()
            fast = FastModel(model, *draft.split())
            difference = (fast(lr) - wanted).abs().max()  # the network may be anybody's
        allowed = 1000 * torch.finfo(lr.dtype).eps
        if not difference <= allowed * wanted.abs().max().clamp_min(1):
            raise _UnknownError(f"its copy is off by {difference}")
    except _UnknownError as error:
        log.debug("%s runs as it is: %s", model.arch, error)
        return model
    return model.with_core(fast)


class FastModel(SRModel):
    """A network made of few layers; it answers what inference asks as its source."""

    def __init__(self, source: SRModel, head: nn.Module, tail: _Tail | None) -> None:
        """Take over what the source is; the tail reads what the head gives."""
        super().__init__()
        for name in (
            *("arch", "color", "config", "memory_format", "precisions"),
            *("size_multiple", "probe_sides", "sees_whole"),
        ):
            setattr(self, name, getattr(source, name))
        self.head, self.tail = head, tail
        self.eval()

    @torch.no_grad()
    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:  # noqa: ARG002
        """The final estimate, at the one scale; those before it are not kept."""
        made = self.head(align_channels(lr))
        return (made if self.tail is None else self.tail(lr, made),)


class _Tail(nn.Module):
    """The last layers, to the picture, run strip by strip (rule 6).

    `times` says how many rows one LR row has, of each map that they read and of the
    picture, `context` how many LR rows are read above and below, and `values` what the
    largest map has for an LR pixel.
    """

    def __init__(
        self, layers: nn.Module, times: Sequence[float], context: int, values: int
    ) -> None:
        super().__init__()
        self.layers, self.context, self.values = layers, context, values
        *self.times, self.scale = times

    def forward(self, lr: Tensor, maps: Sequence[Tensor]) -> Tensor:
        batch, _, height, width = lr.shape
        strips = []
        for top, bottom in cut_strips(height, batch * width * self.values, lr.device):
            above = max(0, top - self.context)
            below = min(height, bottom + self.context)
            parts = [
                each[:, :, int(above * times) : int(below * times)]
                for each, times in zip(maps, self.times, strict=True)
            ]
            edges = (int((edge - above) * self.scale) for edge in (top, bottom))
            strips.append(self.layers(*parts)[:, :, slice(*edges)])
        return torch.cat(strips, dim=2)


class _UnknownError(Exception):
    """The network does what no rule knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernel:
    """A convolution of stride 1 that keeps the size."""

    key: Hashable  # the same for the same kernel; None once it is changed
    weight: Tensor  # (outputs, inputs, k, k), as the layer has it or in float64
    bias: Tensor  # (outputs,)
    reads: bool  # whether what it reads is as precise as a picture (rule 5)
    writes: bool  # whether what it gives is

    def before(self, scale: Tensor, shift: Tensor) -> _Kernel:
        """With a scaling behind it."""
        weight = self.weight.cpu().double() * scale.view(-1, 1, 1, 1)
        bias = self.bias.cpu().double() * scale + shift
        return replace(self, key=None, weight=weight, bias=bias)

    def after(self, scale: Tensor) -> _Kernel:
        """With what it reads multiplied by a factor each."""
        weight = self.weight.cpu().double() * scale.view(-1, 1, 1)
        return replace(self, key=None, weight=weight)


class _Tracer(fx.Tracer):
    """Writes down what a network does; weights are values, not symbols.

    Meanwhile PyTorch asks it at every module's call, whatever thread makes it: there is
    one at a time, and the calls of other threads are none of its own.
    """

    _only_one = threading.Lock()

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def trace(self, *args: Any, **kwargs: Any) -> fx.Graph:  # noqa: ANN401
        with self._only_one:
            return super().trace(*args, **kwargs)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers of PyTorch, and those of ours that say how far they reach."""
        return hasattr(m, "reach") or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:  # noqa: ANN401, ARG002
        return attr_val  # what is made of weights alone is computed at once


class _AtScale(nn.Module):
    """A network at one scale."""

    def __init__(self, model: SRModel, scale: int) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, lr: Tensor) -> Tensor:
        return cast("Tensor", self.model(lr, self.scale))


class _Sizes(fx.Interpreter):
    """Notes the shape of all that is computed."""

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        result = super().run_node(n)
        n.meta["shape"] = getattr(result, "shape", None)
        return result


class _Draft:
    """A network's graph, on its way to a fast copy.

    Beside a shape, a node's `meta` holds what it was found to be: a `kernel`; a
    `scaling`, its scale and shift per channel; the `slope` of an activation; a `sum`;
    and whether it is `fresh`, which is: in memory of its own.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        self.root, self.scale = network, scale
        self.like = next(network.parameters(), torch.zeros(())).detach()
        self.graph = fx.Graph()
        self.layers: dict[str, nn.Module] = {}
        self.names: dict[Hashable, str] = {}

    def write(self, lr: Tensor) -> Tensor:
        """What the network makes of a picture, while it is written down how."""
        try:
            self.graph = _Tracer().trace(self.root)
            made: Tensor = _Sizes(fx.GraphModule(self.root, self.graph)).run(lr)
        # What it does with symbols, or with so small a picture, has no bounds.
        except Exception as error:
            raise _UnknownError(str(error)) from error
        return made

    def apply_rules(self) -> None:
        """Rules 1 to 3 and 5."""
        for node in self._nodes():
            found = self._read(node)
            if found is not node:  # which it may read
                node.replace_all_uses_with(found, partial(operator.is_not, found))
        self._drop()
        if not any("kernel" in node.meta for node in self._nodes()):
            raise _UnknownError("it has nothing to join")
        self._unite()
        for node in self._nodes():
            self._pass_on(node)
        self._keep_ends_precise()
        for node in self._nodes():
            if "kernel" in node.meta:
                self._fuse(node)
        for node in self._nodes():
            self._settle(node)
        self._drop()

    def _nodes(self) -> list[fx.Node]:
        """Those that compute something, in order."""
        passive = ("placeholder", "output", "get_attr")
        return [node for node in self.graph.nodes if node.op not in passive]

    def _drop(self) -> None:
        """Leave out what nothing reads."""
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)

    def put(self, before: fx.Node, function: Any, *args: Any, **meta: Any) -> fx.Node:  # noqa: ANN401
        """A new node, as large as the one before which it is; a name is a layer's."""
        op = "call_module" if isinstance(function, str) else "call_function"
        with self.graph.inserting_before(before):
            node = self.graph.create_node(op, function, args)
        node.meta = {"shape": before.meta["shape"], **meta}
        return node

    def _find_number(self, given: Any) -> float | None:  # noqa: ANN401
        """The value of a number or of a weight that is one; None for all else."""
        if isinstance(given, fx.Node):
            if given.op != "get_attr":
                return None
            given = operator.attrgetter(str(given.target))(self.root)
        if isinstance(given, Tensor):
            return given.item() if given.numel() == 1 else None
        return float(given)

    # What a node is

    def _read(self, node: fx.Node) -> fx.Node:
        """What stands for a node from here on, of which is known what it is."""
        module = None
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_module":
            module = self.root.get_submodule(name)
            name = type(module).__name__
        x: Any = node.args[0]
        in_place = name.endswith("_") or name == "iadd" or node.kwargs.get("inplace")
        if in_place or getattr(module, "inplace", False):
            # Who reads later what was there reads what is there.
            x.replace_all_uses_with(node, lambda user: user > node)
        name = name.replace("iadd", "add").replace("_", "").lower()
        if name in _PASSED_ON:
            return cast("fx.Node", x)
        if isinstance(module, nn.Conv2d) and keeps_size(module):
            return self._read_kernel(node, module)
        if isinstance(module, nn.BatchNorm2d | Affine):
            return self._put_scaling(node, x, *_find_scaling(module))
        if name in ("mul", "truediv", "div"):
            return self._read_factor(node, name != "mul")
        if name == "addcmul":
            return self._read_share(node)
        node.meta["slope"] = self._find_slope(name, node, module)
        node.meta["sum"] = name == "add"
        if node.meta["slope"] is not None:
            return node
        if name not in _KNOWN and not hasattr(module, "reach"):
            raise _UnknownError(f"no rule knows {name}")
        return node if module is None else self._keep(node, module)

    def _read_kernel(self, node: fx.Node, layer: nn.Conv2d) -> fx.Node:
        """A convolution; a 1x1 one of joined features as a sum of several."""
        given: Any = node.args[0]
        features, weights = [given], [layer.weight]
        if isinstance(layer, JointConv):
            features = list(given)
            weights = list(layer.blocks(features[0].meta["shape"][1]))[: len(features)]
        elif given.target is torch.cat and layer.kernel_size == (1, 1):
            features = list(given.args[0])
            widths = [feature.meta["shape"][1] for feature in features]
            weights = list(torch.split(layer.weight, widths, dim=1))
        none = layer.weight.new_zeros(layer.out_channels)
        terms = []
        for part, (feature, weight) in enumerate(zip(features, weights, strict=True)):
            bias = none if part or layer.bias is None else layer.bias
            block = weight.detach().reshape(len(bias), -1, *layer.kernel_size)
            kernel = _Kernel(
                key=(node.target, part),
                weight=block,
                bias=bias.detach(),
                reads=block.shape[1] <= _PICTURE,
                writes=len(block) <= _PICTURE or _is_shuffled(node),
            )
            terms.append(self.put(node, FusedConv, feature, kernel=kernel))
            if part:
                terms.append(self.put(node, operator.add, *terms[-2:], sum=True))
        return terms[-1]

    def _put_scaling(
        self,
        before: fx.Node,
        x: Any,  # noqa: ANN401
        scale: float | Tensor,
        shift: float | Tensor = 0.0,
    ) -> fx.Node:
        """A map times a scale, plus a shift, each per channel or for all."""
        channels = before.meta["shape"][1]
        pair = (torch.as_tensor(each, dtype=torch.float64) for each in (scale, shift))
        scaling = tuple(each.expand(channels) for each in pair)
        return self.put(before, Affine, x, scaling=scaling)

    def _read_factor(self, node: fx.Node, divides: bool) -> fx.Node:
        """A number times a map, or a map by a number."""
        x, number = node.args[0], self._find_number(node.args[1])
        if number is None and not divides:
            x, number = node.args[1], self._find_number(node.args[0])
        if number is None:
            raise _UnknownError("no rule knows products of maps")
        return self._put_scaling(node, x, 1 / number if divides else number)

    def _read_share(self, node: fx.Node) -> fx.Node:
        """Total + share * x, the share a number."""
        total: Any = node.args[0]
        share = self._find_number(node.args[2])
        if share is None:
            raise _UnknownError("no rule knows sums of products")
        if share != 0:
            part = self._put_scaling(node, node.args[1], share)
            total = self.put(node, operator.add, total, part, sum=True)
        return cast("fx.Node", total)

    def _find_slope(
        self, name: str, node: fx.Node, module: nn.Module | None
    ) -> float | None:
        """The slope below zero, if the node is an activation of one slope."""
        if name == "relu":
            return 0.0
        if name == "leakyrelu":
            said = [*node.args[1:2], node.kwargs.get("negative_slope", 0.01)][0]
            return float(getattr(module, "negative_slope", cast("float", said)))
        if name == "prelu":
            return self._find_number(getattr(module, "weight", node.args[-1]))
        return None

    def _keep(self, node: fx.Node, module: nn.Module) -> fx.Node:
        """A layer as it is, but for the layout of what it gives."""
        self.layers[str(node.target)] = copy.deepcopy(module).requires_grad_(False)
        is_local = getattr(module, "mode", None) == "nearest"
        node.meta["reach"] = 0 if is_local else getattr(module, "reach", None)
        fresh = any(True for _ in module.parameters())
        aligned = self.put(node, align_channels, node, fresh=fresh)
        node.append(aligned)
        return aligned

    def _unite(self) -> None:
        """Compute once what is computed several times."""
        known: dict[Hashable, fx.Node] = {}
        for node in self._nodes():
            kernel = node.meta.get("kernel")
            what = kernel.key if kernel else (node.op, node.target)
            given = (node.args, node.kwargs, node.meta.get("scaling"))
            first = known.setdefault((what, str(given)), node)
            if first is not node:
                node.replace_all_uses_with(first)
        self._drop()

    # What belongs together

    def _pass_on(self, node: fx.Node) -> None:
        """Make a factor a part of the convolutions behind it."""
        scale, shift = node.meta.get("scaling", (None, None))
        behind = list(node.users)
        if scale is None or shift.any() or any("kernel" not in b.meta for b in behind):
            return
        for each in behind:
            each.meta["kernel"] = each.meta["kernel"].after(scale)
        node.replace_all_uses_with(cast("fx.Node", node.args[0]))
        self.graph.erase_node(node)

    def _keep_ends_precise(self) -> None:
        """Rule 5 for a network that adds no picture to what it computes.

        Its first features are all that it knows of the picture: what the first layer
        gives the second there is not rounded either. Nor is, at x2, what the last one
        reads: there the picture has the least left to gain, and rounding shows most.
        """
        result = self.graph.output_node().all_input_nodes[0]
        if "kernel" not in result.meta:
            return
        for first in self._nodes():
            second = _find_only_user(first)
            if second is not None and second.meta.get("slope") is not None:
                second = _find_only_user(second)
            if second is None or any("kernel" not in n.meta for n in (first, second)):
                continue
            is_start = first.meta["kernel"].weight.shape[1] <= _PICTURE
            if is_start or (self.scale == 2 and second is result):
                first.meta["kernel"] = replace(first.meta["kernel"], writes=True)
                second.meta["kernel"] = replace(second.meta["kernel"], reads=True)

    def _fuse(self, node: fx.Node) -> None:
        """A convolution with all that follows it alone, as one layer."""
        chain = _Chain(self, [node], node.meta["kernel"])
        while (user := _find_only_user(chain.nodes[-1])) and chain.take(user):
            pass
        kernel, last = chain.kernel, chain.nodes[-1]
        name = f"layer{len(self.layers)}"
        if kernel.key is not None:
            key = kernel.key, kernel.reads, kernel.writes
            name = self.names.setdefault(key, name)
        if name not in self.layers:
            weight, bias = (each.to(self.like) for each in (kernel.weight, kernel.bias))
            self.layers[name] = FusedConv(
                weight, bias, reads=kernel.reads, writes=kernel.writes
            )
        given = [node.args[0]] if chain.add is None else [node.args[0], chain.add]
        layer = self.put(last, name, *given, fresh=True, kernel=kernel)
        layer.kwargs = chain.options
        last.replace_all_uses_with(layer)
        for each in reversed(chain.nodes):
            self.graph.erase_node(each)

    def _settle(self, node: fx.Node) -> None:
        """What was not joined, as it is computed."""
        meta, x, new = node.meta, node.args[0], node
        if meta.get("slope") is not None:
            new = self.put(node, rectify, x, meta["slope"])
        elif "scaling" in meta:
            scale, shift = meta["scaling"]
            layer = Affine(len(scale), 1.0).requires_grad_(False).to(self.like)
            layer.load_state_dict({"weight": scale, "bias": shift})
            name = f"layer{len(self.layers)}"
            self.layers[name] = layer
            new = self.put(node, name, x)
        elif meta.get("sum"):
            new = self.put(node, operator.add, *node.args[:2])
        if new is not node:
            node.replace_all_uses_with(new)
        if new is not node or node.target is torch.zeros_like:
            new.meta["fresh"] = True

    # What is done strip by strip

    def split(self) -> tuple[nn.Module, _Tail | None]:
        """The network, and apart from it what is done strip by strip (rules 4 and 6).

        That begins where it takes least memory, and as late as it can for that.
        """
        (lr, *_, output), nodes = self.graph.nodes, self._nodes()
        order = {node: index for index, node in enumerate([lr, *nodes, output])}
        ends = {node: max(map(order.__getitem__, node.users)) for node in [lr, *nodes]}
        sizes = {node: _measure(node) for node in nodes} | {lr: 0}
        kept = {  # what is there when a node begins, and read by it or later
            node: [one for one in ends if order[one] < order[node] <= ends[one]]
            for node in nodes
        }
        needs = {node: sum(sizes[one] for one in kept[node]) for node in nodes}
        peaks = [0, *accumulate((needs[node] + sizes[node] for node in nodes), max)]
        start, least, context, reach = len(nodes), peaks[-1], 0.0, 0.0
        for index in reversed(range(len(nodes))):
            node = nodes[index]
            own = _find_reach(node)
            reach += math.inf if own is None else own * _SIDE / node.meta["shape"][2]
            if reach > _CONTEXT:
                break
            need = max(peaks[index], needs[node])
            # What is aligned is part of the layer before, whose memory it may share.
            if need < least and node.target is not align_channels:
                start, least, context = index, need, reach
        wanted = output.all_input_nodes
        if start == len(nodes):
            return self._build([lr], nodes, wanted[0]), None
        given, rest = kept[nodes[start]], nodes[start:]
        rows = [each.meta["shape"][2] / _SIDE for each in (*given, *wanted)]
        values = max(each.meta["shape"].numel() for each in rest) // _SIDE**2
        layers = self._build(given, rest, wanted[0])
        head = self._build([lr], nodes[:start], given)
        return head, _Tail(layers, rows, math.ceil(context), values)

    def _build(
        self,
        given: list[fx.Node],
        nodes: list[fx.Node],
        wanted: fx.Node | list[fx.Node],
    ) -> fx.GraphModule:
        """Some nodes as a module, which writes over what it no longer needs."""
        graph = fx.Graph()
        twins = {node: graph.placeholder(node.name) for node in given}
        for node in nodes:
            twins[node] = graph.node_copy(node, twins.__getitem__)
        graph.output(fx.map_arg(wanted, twins.__getitem__))
        _write_over(graph)
        used = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        return fx.GraphModule({name: self.layers[name] for name in used}, graph)


@dataclass(slots=True)
class _Chain:
    """A convolution and what follows it alone: rules 2 and 3."""

    draft: _Draft
    nodes: list[fx.Node]  # the convolution, and what has been taken in so far
    kernel: _Kernel  # with the scalings behind it
    add: fx.Node | None = None
    # Of the layer: the slope of an activation, its share in a sum.
    options: dict[str, Any] = field(default_factory=dict)

    def take(self, user: fx.Node) -> bool:
        """Take in what follows, if that is possible; whether it was."""
        scaling, slope = user.meta.get("scaling"), user.meta.get("slope")
        if "share" in self.options:
            return False
        if "slope" in self.options:
            return scaling is not None and self._take_share(user, *scaling)
        if scaling is not None:
            taken = self._take_scaling(user, *scaling)
        elif slope is not None:
            self.options["slope"], taken = slope, True
        else:
            taken = bool(user.meta.get("sum")) and self._take_sum(user)
        self.nodes += [user] if taken else []
        return taken

    def _take_scaling(self, user: fx.Node, scale: Tensor, shift: Tensor) -> bool:
        """The scaling; a sum's scale is left to what is behind its ReLU."""
        if self.add is None:
            self.kernel = self.kernel.before(scale, shift)
            return True
        relu = _find_only_user(user)
        fits = (scale > 0) & (shift.abs() <= scale * _FURTHEST)
        if relu is None or relu.meta.get("slope") != 0 or not fits.all():
            return False
        if any("kernel" not in reader.meta for reader in relu.users):
            return False
        for behind in relu.users:
            behind.meta["kernel"] = behind.meta["kernel"].after(scale)
        self.kernel = self.kernel.before(torch.ones_like(scale), shift / scale)
        return True

    def _take_share(self, user: fx.Node, scale: Tensor, shift: Tensor) -> bool:
        """A factor behind the activation, and the sum that it is for."""
        total = _find_only_user(user)
        other = None if total is None else _find_other(total, user)
        if other is None or self.add is not None or _find_only_user(other) is not total:
            return False
        if shift.any() or (scale != scale[0]).any():
            return False
        self.add = other
        self.options["share"] = float(scale[0])
        self.nodes += [user, cast("fx.Node", total)]
        return True

    def _take_sum(self, user: fx.Node) -> bool:
        other = _find_other(user, self.nodes[-1])
        if other is None or self.kernel.reads or self.kernel.writes:
            return False
        theirs = other.meta.get("kernel")
        will_take = theirs and not (theirs.reads or theirs.writes)
        if will_take and other > self.nodes[0] and _find_only_user(other) is user:
            return False  # this one in
        if self.add is not None:
            other = self.draft.put(user, operator.add, self.add, other, sum=True)
        self.add = other
        return True


def _find_scaling(module: nn.BatchNorm2d | Affine) -> tuple[Tensor, Tensor]:
    """The scale and the shift of each channel, in evaluation."""
    state = {name: each.cpu().double() for name, each in module.state_dict().items()}
    scale, shift = state["weight"], state["bias"]
    if isinstance(module, nn.BatchNorm2d):
        scale = scale / torch.sqrt(state["running_var"] + module.eps)
        shift = shift - scale * state["running_mean"]
    return scale, shift


def _find_only_user(node: fx.Node) -> fx.Node | None:
    """What alone reads a node; None for several, and for the network's result."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op != "output" else None


def _find_other(user: fx.Node, one: fx.Node) -> fx.Node | None:
    """The other part of a sum, if it is one, and both are as large."""
    if not user.meta.get("sum"):
        return None
    others = [each for each in user.all_input_nodes if each is not one]
    shapes = {each.meta["shape"] for each in (user, one, *others)}
    return others[0] if len(others) == len(shapes) == 1 else None


def _is_shuffled(node: fx.Node) -> bool:
    """Whether a picture is made of a node's values as they are."""
    user = _find_only_user(node)
    if user is None or "shuffle" not in str(user.target).lower():
        return False
    return bool(user.meta["shape"][1] <= _PICTURE)


def _measure(node: fx.Node) -> int:
    """What a node's result takes, in bytes, where maps are in half precision."""
    shape = node.meta["shape"]
    return int(shape.numel()) * (4 if shape[1] <= _PICTURE else 2)


def _find_reach(node: fx.Node) -> int | None:
    """How many rows around it a result's row depends on; None is not known."""
    if "kernel" in node.meta:
        return int(node.meta["kernel"].weight.shape[2]) // 2
    if node.op == "call_module":
        return cast("int | None", node.meta.get("reach", 0))
    name = getattr(node.target, "__name__", str(node.target)).replace("_", "")
    if name == "interpolate" and node.kwargs.get("mode", "nearest") == "nearest":
        return 0
    return _KNOWN.get(name)


def _write_over(graph: fx.Graph) -> None:
    """Have results written over what nothing reads any more (rule 4)."""
    last = {given: node for node in graph.nodes for given in node.all_input_nodes}
    for node in graph.nodes:
        given = node.all_input_nodes
        free = [
            each
            for each in given
            if each.meta.get("fresh")
            and last[each] is node
            and each.meta["shape"] == node.meta.get("shape")
        ]
        kernel = node.meta.get("kernel")
        if not free:
            continue
        if node.target is rectify:
            node.kwargs = {"in_place": True}
        elif node.target is operator.add:
            node.target = operator.iadd
            node.args = node.args if node.args[0] in free else node.args[::-1]
        elif kernel is not None and not (kernel.reads or kernel.writes):
            if given[-1] in free and len(given) > 1:
                node.kwargs = {**node.kwargs, "into": "add"}
            elif given[0] in free and node.meta["shape"][1] >= _WIDE:
                node.kwargs = {**node.kwargs, "into": "x"}
