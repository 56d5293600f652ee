"""Recomputation: the same loss and gradients, from far less memory."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srcli.models import MODELS, variant
from srcli.models.base import SRModel

# Few recursions of each network, more than one group of DRCN's.
SHALLOW = {
    "drcn": {"recursions": 6},
    "drrn": {"units": 3},
    "dsrn": {"steps": 3},
    "mrnet": {"recursions": (2, 3, 3), "blocks": 1},
    "rrrn": {"sub_networks": 2, "iterations": 3, "extract_layers": 1},
}
# Every way that they run.
KINDS = [
    *MODELS,
    "drcn-no-supervision",
    "drcn-deep-supervision",
    "drcn-unshared",
    "drrn-batch",
    "dsrn-untied",
    "dsrn-single-state",
    "mrnet-conv-fusion",
]


def build(name: str) -> SRModel:
    """The variant with few channels and recursions, in training."""
    model_class, config = variant(name)
    torch.manual_seed(3)
    model = model_class(
        dataclasses.replace(config, width=4, **SHALLOW[model_class.arch])
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.train()


def learn(model, recompute, precision=None):
    """Loss, gradients and buffers after two backward passes of all estimates."""
    model.recompute = recompute
    scale = model.config.scales[-1]
    generator = torch.Generator().manual_seed(5)
    lr = torch.rand(2, model.channels, 6, 5, generator=generator)
    for _ in range(2):
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            outputs = (*model.predictions(lr, scale), model(lr, scale))
        loss = torch.stack([output.float().square().mean() for output in outputs]).sum()
        loss.backward()
    values = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": loss.detach(), **values, **dict(model.named_buffers())}


def same(one, two):
    return one.keys() == two.keys() and all(
        (one[name] is None and two[name] is None) or torch.equal(one[name], two[name])
        for name in one
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_and_every_gradient_are_the_same(name):
    plain = learn(build(name), False)
    assert same(learn(build(name), True), plain)
    if name in MODELS:
        rough = learn(build(name), False, torch.bfloat16)
        assert same(learn(build(name), True, torch.bfloat16), rough)
    assert any(value is not None and value.any() for value in plain.values())


class LiveBytes(TorchDispatchMode):
    """The most bytes at once of tensors made under it, work of autograd's included."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.sizes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf.untyped_storage())
        return out

    def add(self, storage):
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.remove, key)

    def remove(self, key):
        self.live -= self.sizes.pop(key)


def measure_step(name, recompute):
    """Bytes held after the forward pass, and the most of a whole step."""
    model_class, config = variant(name)
    fewer = {"sub_networks": 3, "iterations": 4} if name == "rrrn" else {}
    with torch.device("meta"):  # nothing is computed, everything is counted
        model = model_class(dataclasses.replace(config, width=32, **fewer))
    model.recompute = recompute
    scale = config.scales[-1]
    lr = torch.zeros(4, model.channels, 16, 16, device="meta")
    with LiveBytes() as memory:
        loss = model(lr, scale).square().mean()
        held = memory.live
        loss.backward()
    return held, memory.peak


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("drcn", 0.6),
        ("drcn-unshared", 0.3),
        ("drrn", 0.4),
        ("dsrn", 0.6),
        ("mrnet", 0.5),
        ("rrrn", 0.4),
    ],
)
def test_memory_falls(name, most):
    plain_held, plain_peak = measure_step(name, False)
    held, peak = measure_step(name, True)
    assert held < most * plain_held
    assert peak < most * plain_peak


def test_without_gradients_nothing_is_different(monkeypatch):
    model = build("drcn").eval()
    lr = torch.rand(1, model.channels, 6, 5)
    scale = model.config.scales[0]
    with torch.inference_mode():
        plain = model(lr, scale)
        model.recompute = True
        monkeypatch.setattr("srcli.models.base.checkpoint", None)  # not to be called
        assert torch.equal(model(lr, scale), plain)
