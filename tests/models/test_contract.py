"""What every network promises, whichever paper it comes from, in every variant."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from srcli.errors import UsageError
from srcli.models import MODELS, variant, variant_names
from srcli.models.base import SRModel
from srcli.models.counting import MacCounter

SCALES = (2, 3, 4)


def build(name: str, scale: int | None = None, **options) -> SRModel:
    """A new network of that variant with at most eight channels, for inference."""
    model_class, config = variant(name, scale)
    sizes = {"width": min(8, config.width), **options}
    return model_class(dataclasses.replace(config, **sizes)).eval()


def draw(model: SRModel, height: int = 5, width: int = 7, batch: int = 1):
    return torch.rand(batch, model.channels, height, width)


def test_every_network_is_listed_and_names_are_unique():
    for name, model in MODELS.items():
        assert (model.arch, next(iter(model.variants))) == (name, name)
    names = variant_names()
    assert len(names) == len({name.lower() for name in names})
    assert names[: len(MODELS)] == sorted(MODELS)
    with pytest.raises(UsageError, match="did you mean mrnet"):
        variant("mrnett")


@pytest.mark.parametrize("arch", MODELS)
def test_every_variant_enlarges_learns_and_survives_json(arch):
    for name in MODELS[arch].variants:
        check_variant(name)


def check_variant(name: str) -> None:
    model = build(name)
    config = type(model).config_class.from_dict(
        json.loads(json.dumps(model.config.as_dict()))
    )
    assert config == model.config
    with torch.no_grad():  # recursions that start as the identity predict the same
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    lr = draw(model)
    given = lr.clone()
    loss = torch.zeros(())
    for scale in model.config.scales:
        with torch.no_grad():
            sr = model(lr, scale)
        predictions = model.predictions(lr, scale)
        assert sr.shape == (1, model.channels, 5 * scale, 7 * scale)
        assert all(estimate.shape == sr.shape for estimate in predictions)
        torch.testing.assert_close(sr, predictions[-1].detach(), atol=1e-5, rtol=1e-5)
        loss = loss + sum(estimate.square().mean() for estimate in predictions)
    assert torch.isfinite(loss)
    assert torch.equal(lr, given)  # in-place layers must not reach the input
    loss.backward()
    silent = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # The average of a single prediction is that prediction.
    assert silent == (["weights"] if name == "drcn-d1" else []), name


@pytest.mark.parametrize("name", MODELS)
def test_configs_that_make_no_network_are_refused(name):
    config_class = MODELS[name].config_class
    with pytest.raises(UsageError, match="did you mean scales"):
        config_class.from_dict({"scale": [2]})
    for scales in ((5,), ()):
        with pytest.raises(UsageError, match="among"):
            config_class(scales=scales)
    with pytest.raises(UsageError):
        config_class(width=0)
    with pytest.raises(UsageError, match="takes int"):
        config_class.from_dict({"width": "8"})


@pytest.mark.parametrize("name", MODELS)
def test_any_size_and_type_on_any_device(name):
    for scale, size in zip(SCALES, [(1, 1), (1, 6), (4, 3)], strict=True):
        model = build(name, scale)
        with torch.no_grad():
            sr = model(draw(model, *size))
        assert sr.shape == (1, model.channels, size[0] * scale, size[1] * scale)
        assert torch.isfinite(sr).all()
    for dtype in (torch.float64, torch.bfloat16):
        model = model.to(dtype)
        with torch.no_grad():
            assert model(draw(model).to(dtype)).dtype == dtype
    meta = model.to("meta")
    assert meta(draw(model).to("meta", torch.bfloat16)).is_meta


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_remembered_and_pictures_of_a_batch_do_not_mix(name):
    model = build(name, 2).double()
    lr = draw(model, batch=2).double()
    with torch.no_grad():
        apart = torch.cat([model(lr[:1]), model(lr[1:])])
        torch.testing.assert_close(model(lr), apart, atol=1e-12, rtol=0)
        assert torch.equal(model(lr[:1]), apart[:1])
        # Config and weights are the whole network.
        twin = type(model)(model.config).double().eval()
        assert not torch.equal(twin(lr[:1]), apart[:1])
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin(lr[:1]), apart[:1])


@pytest.mark.parametrize("name", MODELS)
def test_a_scale_that_is_not_served_is_refused(name):
    model = build(name, 3)
    with pytest.raises(UsageError, match="not x2"):
        model(draw(model), 2)
    with pytest.raises(UsageError, match="not x4"):
        model.receptive_radius(4)
    if name in ("dsrn", "rrrn"):  # some layers' strides are the scale
        with pytest.raises(UsageError, match="one scale"):
            type(model).config_class(scales=(2, 4))
    else:
        several = type(model)(type(model).config_class(scales=(2, 4), width=8))
        with pytest.raises(UsageError, match="name a scale"):
            several(draw(model))


# Recursion limit


@pytest.mark.parametrize("name", MODELS)
def test_a_recursion_limit_shortens_the_network(name):
    model = build(name, 2)
    lr = draw(model)
    with torch.no_grad():
        whole = model(lr)
        model.limit_recursions(99)
        assert torch.equal(model(lr), whole)
        with MacCounter() as deep:
            model(lr)
        model.limit_recursions(1)
        with MacCounter() as shallow:
            less = model(lr)
        assert less.shape == whole.shape
        assert shallow.macs < deep.macs
        if name in ("drcn", "mrnet"):  # which keep what they do when it is raised
            for limit in (2, None):
                model.limit_recursions(limit)
                for sr in (model(lr), model.predictions(lr)[-1]):
                    torch.testing.assert_close(sr, less, atol=1e-6, rtol=0)
    with pytest.raises(UsageError):
        model.limit_recursions(0)


# Receptive radius


def measure_radius(model: SRModel, scale: int) -> tuple[int, int]:
    """LR rows above and below one whose output rows have a gradient there.

    A strip of three columns shows the reach along its length at little cost.
    """
    with torch.no_grad():  # positive and of gain one: no activation blocks
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.uniform_(0.5, 1.5).div_(fan)
    centre = model.receptive_radius(scale) + 3
    lr = draw(model, 2 * centre + 1, 3).double().requires_grad_()
    rows = slice(centre * scale, (centre + 1) * scale)
    model.double()(lr, scale)[:, :, rows].sum().backward()
    touched = lr.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten() - centre
    return int(-touched.min()), int(touched.max())


SHORT = {"sub_networks": 1, "iterations": 1}


@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        *(("drcn", scale, {"recursions": 2}) for scale in SCALES),
        *(("mrnet", scale, {"recursions": (1, 2, 3)}) for scale in SCALES),
        ("drcn-unshared", 4, {"recursions": 2}),
        *(("drrn", scale, {"units": units}) for units, scale in enumerate((2, 3, 4))),
        ("drrn-batch", 2, {"blocks": 2, "units": 1, "path": "chain"}),
        *(("dsrn", scale, {"steps": 3}) for scale in SCALES),
        ("dsrn", 3, {"steps": 3, "kernel": (2, 3, 4)}),
        ("dsrn", 4, {"steps": 3, "kernel": (4, 7, 10)}),
        ("dsrn-single-state", 3, {"steps": 3}),
        ("mrnet-shuffle3x3", 3, {"blocks": 1, "recursions": (2, 2, 2)}),
        ("mrnet-conv-fusion", 4, {"blocks": 1, "recursions": (2, 2, 2)}),
        *(("rrrn", scale, {**SHORT, "sub_networks": 2}) for scale in SCALES),
        ("rrrn", 3, {**SHORT, "iterations": 3, "extract_layers": 1}),
        ("rrrn-1x1", 4, SHORT),
        ("rrrn", 3, {**SHORT, "reconstruct_kernel": 7}),
    ],
)
def test_the_receptive_radius_is_exact(name, scale, options):
    model = build(name, scale, **{"width": 3, **options})
    radius = model.receptive_radius()
    assert measure_radius(model, scale) == (radius, radius)
    assert 0 < model.tile_overlap() <= radius


def test_sub_networks_that_do_not_run_reach_nowhere():
    model = build("rrrn", 2, width=3, sub_networks=3, iterations=2)
    model.limit_recursions(2)
    radius = model.receptive_radius()
    assert measure_radius(model, 2) == (radius, radius)


@pytest.mark.parametrize(
    ("name", "scale"), list(zip(MODELS, (2, 3, 4, 4, 2), strict=True))
)
def test_a_crop_with_its_radius_of_context_equals_the_whole(name, scale):
    model = build(name, scale).double()
    radius = model.receptive_radius()
    lr = draw(model, 2 * radius + 9, 3).double()
    with torch.no_grad():
        whole = model(lr)
        crop = model(lr[:, :, 4:-4])
    rows = slice(radius * scale, (radius + 1) * scale)
    inside = slice(rows.start + 4 * scale, rows.stop + 4 * scale)
    torch.testing.assert_close(crop[:, :, rows], whole[:, :, inside])


def test_radius_and_overlap_of_the_papers_networks():
    found = {}
    for name in MODELS:
        models = [build(name, scale, width=2) for scale in SCALES]
        found[name] = [(m.receptive_radius(), m.tile_overlap()) for m in models]
    assert found == {
        "drcn": [(12, 12), (8, 8), (7, 7)],
        "drrn": [(28, 28), (19, 19), (15, 15)],
        "dsrn": [(17, 14)] * 3,
        "mrnet": [(89, 20), (131, 20), (173, 20)],
        "rrrn": [(80, 16), (79, 16), (43, 16)],
    }


@pytest.mark.parametrize("name", MODELS)
def test_autocast_keeps_the_picture_in_full_precision(name):
    model = build(name, 2)
    lr = draw(model, 6, 6)
    states = []
    hooks = (nn.Conv2d, nn.ConvTranspose2d)
    for layer in model.modules():
        if isinstance(layer, hooks):
            layer.register_forward_hook(lambda *given: states.append(given[2].dtype))
    with torch.no_grad():
        exact = model(lr)
        states.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = (model(lr), *model.predictions(lr))
    assert torch.bfloat16 in states
    assert {sr.dtype for sr in outputs} == {torch.float32}
    torch.testing.assert_close(outputs[0], exact, atol=0.05, rtol=0)
