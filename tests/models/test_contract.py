"""What every network promises, whichever paper it comes from, in every variant."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from srcli.errors import UsageError
from srcli.models import MODELS, variant, variant_names
from srcli.models.base import ModelConfig, SRModel
from srcli.models.counting import MacCounter, count_macs, count_parameters
from srcli.models.drcn import DRCN
from srcli.models.drrn import DRRN
from srcli.models.mrnet import MRNet

SCALES = (2, 3, 4)


def shrink(config: ModelConfig) -> ModelConfig:
    """The same structure with at most eight channels, for speed."""
    widths = {
        field.name: min(8, getattr(config, field.name))
        for field in dataclasses.fields(config)
        if "width" in field.name
    }
    return dataclasses.replace(config, **widths)


def build(name: str, scale: int | None = None) -> SRModel:
    """A small, new network of that variant, ready for inference."""
    model_class, config = variant(name, scale)
    return model_class(shrink(config)).eval()


def draw(model: SRModel, height: int = 5, width: int = 7, batch: int = 1):
    return torch.rand(batch, model.channels, height, width)


def test_every_network_is_listed_under_its_own_name():
    for name, model in MODELS.items():
        assert model.arch == name
        assert next(iter(model.variants)) == name
        assert issubclass(model, SRModel)
        assert all(
            isinstance(config, model.config_class) for config in model.variants.values()
        )


def test_variant_names_are_lower_case_and_unique():
    names = variant_names()
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)
    assert names[: len(MODELS)] == sorted(MODELS)


@pytest.mark.parametrize("name", variant_names())
def test_a_variant_enlarges_and_forward_is_its_last_prediction(name):
    model = build(name)
    scale = model.config.scales[-1]
    lr = draw(model)
    given = lr.clone()
    with torch.no_grad():
        sr = model(lr, scale)
        predictions = model.predictions(lr, scale)
    assert sr.shape == (1, model.channels, 5 * scale, 7 * scale)
    assert all(estimate.shape == sr.shape for estimate in predictions)
    assert torch.isfinite(sr).all()
    torch.testing.assert_close(sr, predictions[-1], atol=1e-5, rtol=1e-5)
    assert torch.equal(lr, given)  # in-place layers must not reach the input


@pytest.mark.parametrize("name", variant_names())
def test_gradients_reach_every_parameter_of_a_variant(name):
    model = build(name).train()
    with torch.no_grad():  # recursions that start as the identity predict the same
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    lr = draw(model, batch=2)
    loss = torch.zeros(())
    for scale in model.config.scales:
        for estimate in model.predictions(lr, scale):
            loss = loss + estimate.square().mean()
    loss.backward()
    silent = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # The average of a single prediction is that prediction.
    assert silent == (["weights"] if name == "drcn-d1" else [])


@pytest.mark.parametrize("name", variant_names())
def test_a_config_survives_json(name):
    model, config = variant(name)
    stored = json.loads(json.dumps(config.as_dict()))
    assert model.config_class.from_dict(stored) == config


@pytest.mark.parametrize("name", MODELS)
def test_a_config_names_what_it_does_not_know(name):
    with pytest.raises(UsageError, match="did you mean scales"):
        MODELS[name].config_class.from_dict({"scale": [2]})
    with pytest.raises(UsageError, match="among 2, 3 and 4"):
        MODELS[name].config_class(scales=(5,))
    with pytest.raises(UsageError, match="among 2, 3 and 4"):
        MODELS[name].config_class(scales=())


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (4, 3)])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", MODELS)
def test_any_size_at_any_scale(name, scale, size):
    model = build(name, scale)
    with torch.no_grad():
        sr = model(draw(model, *size))
    assert sr.shape == (1, model.channels, size[0] * scale, size[1] * scale)
    assert torch.isfinite(sr).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_the_output_has_the_input_dtype(name, dtype):
    model = build(name, 3).to(dtype)
    with torch.no_grad():
        lr = draw(model).to(dtype)
        assert model(lr).dtype == dtype
        assert {sr.dtype for sr in model.predictions(lr)} == {dtype}


@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_on_the_input_device(name):
    model = build(name, 2).to("meta")
    assert model(torch.zeros(1, model.channels, 4, 4, device="meta")).is_meta


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_remembered_between_calls(name):
    model = build(name, 2)
    lr = draw(model)
    with torch.no_grad():
        first = model(lr)
        model(draw(model, 3, 4, batch=2))
        assert torch.equal(model(lr), first)


@pytest.mark.parametrize("name", MODELS)
def test_pictures_of_a_batch_do_not_mix(name):
    model = build(name, 2).double()
    lr = draw(model, batch=2).double()
    with torch.no_grad():
        apart = torch.cat([model(lr[:1]), model(lr[1:])])
        torch.testing.assert_close(model(lr), apart, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_scale_that_is_not_served_is_refused(name):
    model = build(name, 3)
    with pytest.raises(UsageError, match="not x2"):
        model(draw(model), 2)
    with pytest.raises(UsageError, match="not x4"):
        model.receptive_radius(4)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_serves_several_scales_or_says_that_it_does_not(name):
    model_class = MODELS[name]
    if name in ("dsrn", "rrrn"):  # some layers' strides are the scale
        assert not model_class.multi_scale
        with pytest.raises(UsageError, match="serves one scale"):
            model_class(shrink(model_class.config_class(scales=(2, 4))))
    else:
        model = model_class(shrink(model_class.config_class(scales=(2, 4))))
        with pytest.raises(UsageError, match="name a scale"):
            model(draw(model))


@pytest.mark.parametrize("name", MODELS)
def test_config_and_weights_are_the_whole_network(name):
    model = build(name, 4)
    config = model.config_class.from_dict(model.config.as_dict())
    twin = type(model)(config).eval()
    lr = draw(model)
    with torch.no_grad():
        assert not torch.equal(twin(lr), model(lr))
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin(lr), model(lr))


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean mrnet"):
        variant("mrnett")


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
            assert model(lr).shape == whole.shape
        assert shallow.macs < deep.macs


@pytest.mark.parametrize("name", ["drcn", "mrnet"])
def test_raising_the_limit_keeps_the_output_where_promised(name):
    model = build(name, 2)
    lr = draw(model)
    with torch.no_grad():
        model.limit_recursions(1)
        shallow = model(lr)
        for limit in (2, 3, None):
            model.limit_recursions(limit)
            torch.testing.assert_close(model(lr), shallow, atol=1e-6, rtol=0)
            torch.testing.assert_close(
                model.predictions(lr)[-1], shallow, atol=1e-6, rtol=0
            )


# Receptive radius


def open_all_gates(model: nn.Module) -> None:
    """Make every weight positive and of gain one, so that no activation blocks."""
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.uniform_(0.5, 1.5).div_(fan)


def measure_radius(model: SRModel, scale: int) -> int:
    """Furthest LR row with a gradient from the output rows of one LR row.

    A strip of three columns shows the reach along its length at little cost.
    """
    centre = model.receptive_radius(scale) + 3
    lr = draw(model, 2 * centre + 1, 3).double().requires_grad_()
    rows = slice(centre * scale, (centre + 1) * scale)
    model.double()(lr, scale)[:, :, rows].sum().backward()
    touched = lr.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    return int((touched - centre).abs().max())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", MODELS)
def test_the_receptive_radius_of_the_whole_network_is_exact(name, scale):
    model = build(name, scale)
    open_all_gates(model)
    assert measure_radius(model, scale) == model.receptive_radius()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("model", "options"),
    [
        *((DRCN, {"recursions": depth}) for depth in (1, 2, 3, 4)),
        (DRCN, {"recursions": 2, "skip": False, "supervision": False}),
        (DRCN, {"recursions": 2, "sharing": "none"}),
        *((DRRN, {"units": units}) for units in (0, 1, 2, 3)),
        (DRRN, {"blocks": 2, "units": 1, "path": "chain", "norm": "batch"}),
        (MRNet, {"blocks": 0}),
        (MRNet, {"blocks": 1}),
        (MRNet, {"blocks": 1, "fusion_kernel": 3}),
        (MRNet, {"blocks": 1, "fusion": "conv"}),
        (MRNet, {"blocks": 2, "recursion": "baseline"}),
    ],
)
def test_the_receptive_radius_follows_the_depth(model, options, scale):
    if model is MRNet:
        options = {"recursions": (2, 2, 2), **options}
    network = model(model.config_class(scales=(scale,), width=4, **options)).eval()
    open_all_gates(network)
    assert measure_radius(network, scale) == network.receptive_radius()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", MODELS)
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


@pytest.mark.parametrize("name", MODELS)
def test_tiles_overlap_by_no_more_than_the_radius(name):
    model = build(name, 2)
    assert 0 < model.tile_overlap() <= model.receptive_radius()


# Counting


class _Probe(SRModel):
    """One layer on a three- or four-channel picture, as a network to count."""

    arch = "probe"
    color = "rgb"
    layer: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.body = self.make()

    def predictions(self, lr, scale=None):
        return (self.body(lr),)


def count_layer(make) -> int:
    """Multiply-accumulates on the counter's own 12x12 picture, at x2."""
    probe = type("Probe", (_Probe,), {"make": staticmethod(make)})
    return count_macs(probe(ModelConfig(scales=(2,))), 2, height=24, width=24)


@pytest.mark.parametrize(
    ("make", "macs"),
    [
        # 144 positions, 8 outputs, 3 inputs, 3x3.
        (lambda: nn.Conv2d(3, 8, 3, padding=1), 144 * 8 * 3 * 9),
        (lambda: nn.Conv2d(3, 8, 3, padding=1, bias=False), 144 * 8 * 3 * 9),
        # No padding: 10x10 positions.
        (lambda: nn.Conv2d(3, 8, 3), 100 * 8 * 3 * 9),
        # Stride 2: 6x6 positions.
        (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), 36 * 8 * 3 * 9),
        # Three groups: an output reads one input.
        (lambda: nn.Conv2d(3, 6, 5, padding=2, groups=3), 144 * 6 * 25),
        # Transposed: every *input* position spreads over 5 outputs of 6x6.
        (lambda: nn.ConvTranspose2d(3, 5, 6, stride=2, padding=2), 144 * 3 * 5 * 36),
        # Transposed with groups: an input spreads over its group's two outputs.
        (lambda: nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3), 144 * 3 * 2 * 4),
        # Two layers add up; what is no convolution is not counted.
        (
            lambda: nn.Sequential(
                nn.Conv2d(3, 4, 1), nn.PReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 3, 1)
            ),
            144 * 12 + 576 * 3,
        ),
    ],
)
def test_macs_are_those_counted_by_hand(make, macs):
    assert count_layer(make) == macs


def test_macs_grow_with_the_area():
    model = build("mrnet", 2)
    once = count_macs(model, 2, height=100, width=100)
    assert count_macs(model, 2, height=200, width=300) == pytest.approx(6 * once)


def test_counting_leaves_the_network_alone():
    model = build("mrnet", 2)
    lr = draw(model)
    with torch.no_grad():
        before = model(lr)
        count_macs(model, 2)
        assert torch.equal(model(lr), before)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_parameters_are_counted_once_where_shared():
    layer = nn.Conv2d(2, 3, 3)
    assert count_parameters(nn.Sequential(layer, layer)) == 3 * 2 * 9 + 3
