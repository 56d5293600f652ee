"""A fast copy is the network: each rule on a made-up network, then all networks."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from srcli import upscale
from srcli.imaging.resize import imresize_torch
from srcli.inference.device import activation_bytes_per_pixel
from srcli.models import MODELS, fused, variant
from srcli.models.base import ModelConfig, SRModel
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.fast import FastModel, make_fast
from srcli.models.fused import _onednn_fuses
from srcli.models.layers import Affine, JointConv
from srcli.pretrained.weight_file import save_weights

FUSES = _onednn_fuses(torch.empty(0))
needs_onednn = pytest.mark.skipif(not FUSES, reason="PyTorch is built without oneDNN")
WIDTH = 8


class Made(SRModel):
    """A network made up for a test, of a body on the picture or on features."""

    arch = "made"
    color = "rgb"

    def __init__(self, body: nn.Module, picture: bool = False) -> None:
        super().__init__()
        self.config = ModelConfig(scales=(2,))
        self.enter, self.body = conv(3, WIDTH), body
        self.leave = nn.ConvTranspose2d(WIDTH, 3, 2, 2)
        self.picture = picture

    def predictions(self, lr, scale=None):
        if self.picture:
            return (self.body(lr),)
        x = F.relu(self.enter(lr))
        return (self.leave(self.body(x)) + imresize_torch(lr, 2),)

    def receptive_radius(self, scale=None):
        return 8


class Body(nn.Module):
    """What a function does with layers of the names given, and a map."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def conv(inputs: int = WIDTH, outputs: int = WIDTH, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def move(module: nn.Module) -> None:
    """Away from where weights begin; statistics, too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(1.0, 3.0)


def make(function, *, picture: bool = False, **layers: nn.Module) -> Made:
    model = Made(Body(function, **layers), picture)
    move(model)
    return model.eval()


BOTH = {torch.float64: 1e-10, torch.float32: 1e-4}


def check(model: SRModel, scale: int, shape=(2, 7, 6), dtypes=tuple(BOTH)) -> SRModel:
    """Equal to the last digits in double precision, nearly so in single."""
    fast = model
    for dtype in dtypes:
        allowed = BOTH[dtype]
        model = model.to(dtype)
        fast = make_fast(model, scale)
        assert isinstance(fast, FastModel)
        lr = torch.rand(shape[0], model.channels, *shape[1:], dtype=dtype)
        given = lr.clone()
        with torch.no_grad():
            expected, result = model(lr, scale), fast(lr, scale)
        assert torch.equal(lr, given)
        assert expected.std() > 1e-3
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            result, expected, atol=allowed * size, rtol=0, check_stride=False
        )
    return fast


class Operations(TorchDispatchMode):
    """Counts what makes or changes feature maps, but for views and the picture's."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        is_map = isinstance(out, Tensor) and out.dim() == 4 and len(out) == 1
        if is_map and out.shape[1] >= WIDTH and not func.is_view:
            name = func.name().split("::")[1].split(".")[0].strip("_")
            if "reorder" not in name and "empty" not in name:
                self.counts["convolution" if "convol" in name else name] += 1
        return out


def count(model: SRModel, dtype=torch.float32) -> dict[str, int]:
    """What writes feature maps in the fast copy, the first layer's not counted."""
    fast = check(model, 2)
    lr = torch.rand(1, 3, 6, 6)
    with torch.inference_mode():
        fast(lr, 2)  # what is made once
        with Operations() as seen:
            fast(lr, 2)
    counts = seen.counts - Counter({"copy": 99, "convolution": 1})
    return {name: number for name, number in counts.items() if number}


# The rules, each on a network made for it


def scale(own, x):
    return own.norm(own.one(x)) / 3


def rectify(own, x):
    return own.act(x + own.two(own.act(own.one(x))))


@needs_onednn
@pytest.mark.parametrize(
    ("body", "layers", "passes"),
    [
        # Joined features are not joined.
        (
            lambda own, x: own.both(torch.cat((x, own.one(x)), dim=1)),
            {"both": conv(2 * WIDTH, WIDTH, 1)},
            {"convolution": 3},
        ),
        (
            lambda own, x: own.both((x, own.one(x))),
            {"both": JointConv(2 * WIDTH, WIDTH)},
            {"convolution": 3},
        ),
        # What is computed twice is computed once.
        (
            lambda own, x: own.last(own.one(x) * 0.5) + own.last(own.one(x) * 0.5),
            {},
            {"convolution": 2, "add": 1},
        ),
        # A scaling behind a convolution becomes a part of it.
        (scale, {"norm": nn.BatchNorm2d(WIDTH)}, {"convolution": 1}),
        (scale, {"norm": Affine(WIDTH, 0.7)}, {"convolution": 1}),
        # A convolution adds and rectifies as it writes.
        (rectify, {"act": nn.ReLU()}, {"convolution": 2}),
        (rectify, {"act": nn.PReLU()}, {"convolution": 2, "leaky_relu": 1}),
        # A sum of three is made by its last convolution.
        (
            lambda own, x: own.last(x + own.two(F.relu(own.one(x))) + own.down(x)),
            {"down": conv()},
            {"convolution": 4},
        ),
    ],
)
def test_maps_are_passed_over_no_more_than_needed(body, layers, passes):
    made = {name: conv() for name in ("one", "two", "last")} | layers
    assert count(make(body, **made)) == passes


@needs_onednn
@pytest.mark.parametrize("mixed", [False, True])
def test_a_scaled_sum_is_rectified_by_the_convolution_that_makes_it(mixed):
    def body(own, x):
        return own.last(F.relu(own.norm(x + own.one(x))))

    model = make(body, one=conv(), norm=Affine(WIDTH, 1.0), last=conv())
    with torch.no_grad():
        model.body.norm.bias.normal_(0, 0.2)
        if mixed:
            model.body.norm.weight[::3] *= -1
    extra = {"addcmul": 1, "relu": 1} if mixed else {}
    assert count(model) == {"convolution": 2, **extra}
    # A channel that is all but switched off, with a shift as all others have.
    with torch.no_grad():
        model.body.norm.weight[3], model.body.norm.bias[3] = 1e-30, 0.8
    check(model, 2)


@pytest.mark.parametrize("share", [-2.0, 0.0])
def test_a_share_of_what_was_rectified_is_added(share):
    def body(own, x):
        total = torch.zeros_like(x)
        for _ in range(3):
            x = F.relu(own.one(x))
            total = torch.addcmul(total, F.relu(own.two(x)), torch.tensor(share))
        return own.last(total) + own.last(x)

    model = make(body, one=conv(), two=conv(), last=conv())
    assert count(model)["convolution"] == (8 if share else 5)


def test_layers_that_work_in_place_do_what_they_did():
    def body(own, x):
        y = own.one(x)
        own.act(y)  # who reads y from here on reads it rectified
        y += x
        return own.last(y) + y.mul_(0.5)

    model = make(body, one=conv(), last=conv(), act=nn.ReLU(inplace=True))
    check(model, 2)


def test_what_nothing_else_reads_is_written_over():
    wide = {"enter": conv(WIDTH, 256), "one": conv(256, 256), "leave": conv(256, WIDTH)}

    def body(own, x):
        x = own.enter(x)
        for _ in range(5):
            x = F.relu(own.one(x))
        return own.leave(x)

    fast = make_fast(make(body, **wide), 2)
    assert 1 <= activation_bytes_per_pixel(fast, 2, torch.float32) / (4 * 256) < 1.3


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("drcn", "reconstruct.0.output"),
        ("drrn", "reconstruct.convolution"),
        ("dsrn", "leave"),
        ("rrrn", "reconstruct.to_image"),
    ],
)
def test_a_picture_that_is_added_is_not_rounded(name, last):
    model = shrunk(name).float()
    with torch.no_grad():
        for parameter in model.get_submodule(last).parameters():
            parameter.zero_()
    lr = torch.rand(1, model.channels, 6, 6)
    expected = imresize_torch(lr, 2)
    if name == "rrrn":
        expected = F.interpolate(lr, scale_factor=2, mode="bilinear")
    with torch.autocast("cpu", torch.bfloat16):
        result = make_fast(model, 2)(lr, 2)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_without_a_picture_added_what_both_ends_hand_on_is_not_rounded_either():
    model = make(
        lambda own, x: own.last(own.two(own.one(F.relu(own.enter(x))))),
        picture=True, enter=conv(3), one=conv(), two=conv(), last=conv(WIDTH, 3),
    )  # fmt: skip
    lr = torch.rand(1, 3, 9, 8)
    own = model.body
    with torch.inference_mode():
        features = own.one(F.relu(own.enter(lr))).bfloat16()  # in float32 until there
        expected = own.last(own.two(features.float()))
        with torch.autocast("cpu", torch.bfloat16):
            result = make_fast(model, 2)(lr)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def enlarge(own, x):
    """A network whose largest maps come last."""
    x = own.two(F.relu(own.one(x)))
    return own.last(F.relu(own.hidden(F.pixel_shuffle(own.expand(x), 2))))


ENLARGING = {"one": conv(3), "two": conv(), "expand": conv(WIDTH, 4 * WIDTH),
             "hidden": conv(), "last": conv(WIDTH, 3)}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "strip"),
    [((1, 1, 1), 1), ((2, 4, 3), 600), ((1, 9, 1), 1 << 23), ((1, 13, 5), 1)],
)
def test_strips_change_nothing(shape, strip, monkeypatch):
    monkeypatch.setattr(fused, "_STRIP", strip)
    check(make(enlarge, picture=True, **ENLARGING), 2, shape)


def branch(own, x):
    return own.one(x) if x.mean() > 0 else x


@pytest.mark.parametrize(
    "body", [branch, lambda own, x: torch.softmax(own.one(x), 1),
             lambda own, x: own.one(x) * x,
             lambda own, x: own.one(F.pad(x, (5, 5, 5, 5), "reflect"))]  # not so small
)  # fmt: skip
def test_what_no_rule_knows_runs_as_it_is(body):
    model = make(body, one=conv())
    assert make_fast(model, 2) is model


# The networks


def shrunk(name: str, scale: int | None = None) -> SRModel:
    """A narrow float64 network whose weights all have moved from where they began."""
    network, config = variant(name, scale)
    sizes = {"width": WIDTH} | ({"blocks": 2} if network.arch == "mrnet" else {})
    torch.manual_seed(1)
    model = network(dataclasses.replace(config, **sizes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("arch", MODELS)
def test_a_fast_copy_is_the_network_in_every_variant(arch):
    for name in MODELS[arch].variants:
        model = shrunk(name)
        check(model, model.config.scales[-1], (1, 5, 6), (torch.float64,))


@pytest.mark.parametrize(
    ("name", "limit", "scale"),
    [
        *zip(MODELS, (1, 2, 1, 2, 1), (2, 3, 3, 2, 2), strict=True),
        ("dsrn-untied", 2, 2),
        ("drcn-no-supervision", 2, 3),
    ],
)
def test_below_the_limit_and_in_strips(name, limit, scale, monkeypatch):
    monkeypatch.setattr(fused, "_STRIP", 600)
    model = shrunk(name, scale)
    model.recursion_limit = limit
    check(model, scale)


@pytest.mark.parametrize(("path", "norm"), [("multi", "batch"), ("chain", "affine")])
def test_normalisations_of_any_sign(path, norm):
    config = DRRNConfig(scales=(2,), blocks=2, units=3, width=8, path=path, norm=norm)
    model = DRRN(config).double().eval()
    move(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".norm" in name and name.endswith("weight"):
                parameter.abs_().clamp_(min=0.05)
                parameter *= torch.randn_like(parameter).sign()
    check(model, 2)


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_stays_near_the_network(name):
    model = shrunk(name).float()
    scale = model.config.scales[-1]
    lr = torch.rand(1, model.channels, 9, 8)
    with torch.no_grad():
        exact = model(lr, scale)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = make_fast(model, scale)(lr, scale)
    assert rough.dtype == torch.float32
    size = max(1.0, float(exact.abs().max()))
    assert 0 < float((rough - exact).abs().max()) < 0.03 * size


# Bytes of an LR pixel in bf16.
MEMORY: dict[str, tuple[int, int]] = {
    "mrnet": (4, 2764), "drrn-b1u9": (3, 7004), "dsrn": (4, 17241),
    "drcn-d6": (3, 10472), "rrrn-g1": (4, 24600),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_that_of_few_maps(name):
    scale, most = MEMORY[name]
    network, config = variant(name, scale)
    fast = make_fast(network(config).eval(), scale)
    assert activation_bytes_per_pixel(fast, scale, torch.bfloat16) <= most


def test_a_copy_leaves_the_network_as_it_is():
    model = DRRN(DRRNConfig(units=2, width=8, norm="batch")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = make_fast(model.eval(), 2)
    fast(torch.rand(1, 1, 4, 4), 2)
    fast.to(torch.bfloat16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    for question in ("arch", "color", "channels", "config", "memory_format"):
        assert getattr(fast, question) == getattr(model, question)


def keep_mean(own, x):
    own.mean = getattr(own, "mean", torch.zeros(())).type_as(x)  # as DAT does
    return own.layer(x - own.mean)


def keep_map(own, x):
    own.layer.seen = x
    return own.layer(own.layer.seen)


def keep_and_branch(own, x):
    own.seen = x * 0
    return own.layer(x) if own.seen.sum() == 0 else own.seen


@pytest.mark.parametrize("body", [keep_mean, keep_map, keep_and_branch])
def test_what_a_network_keeps_in_itself_is_never_a_symbol(body):
    model = make(body, layer=conv())
    lr = torch.rand(1, 3, 6, 6)
    wanted = copy.deepcopy(model)(lr)
    fast = make_fast(model, 2)
    torch.testing.assert_close(model(lr), wanted, rtol=0, atol=0)
    torch.testing.assert_close(fast(lr, 2), wanted)


def test_other_threads_compute_as_ever_while_one_writes():
    other, picture = conv(), torch.rand(1, WIDTH, 5, 5)
    wanted, answers = other(picture), []

    def body(own, x):
        with ThreadPoolExecutor(1) as pool:
            answers.append(pool.submit(other, picture).result())
        return own.layer(x)

    check(make(body, layer=conv()), 2)
    for answer in answers:
        torch.testing.assert_close(answer, wanted, rtol=0, atol=0)


def test_several_threads_write_at_once():
    networks = [make(lambda own, x: own.layer(x), layer=conv()) for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda each: make_fast(each, 2), networks))
    assert all(isinstance(each, FastModel) for each in copies)
    lr = torch.rand(1, 3, 6, 6)
    for network, fast in zip(networks, copies, strict=True):
        torch.testing.assert_close(fast(lr, 2), network(lr, 2))


# A sixth network


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FooNetConfig(ModelConfig):
    scales: tuple[int, ...] = (2,)
    width: int = 8


class FooNet(SRModel):
    """What docs/contributing.md says that a network is, and nothing else."""

    arch, color, config_class, multi_scale = "foonet", "rgb", FooNetConfig, False
    variants: ClassVar = {"foonet": FooNetConfig()}

    def __init__(self, config=None):
        super().__init__()
        self.config = config or FooNetConfig()
        self.first, self.again = conv(3, self.config.width), conv(self.config.width)
        self.last = conv(self.config.width, 12)

    def predictions(self, lr, scale=None):
        x = F.relu(self.first(lr))
        for _ in range(3):
            x = x + F.relu(self.again(x))
        return (F.pixel_shuffle(self.last(x), self.resolve_scale(scale)),)

    def receptive_radius(self, scale=None):
        return 5


def test_a_sixth_network_is_one_file_and_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS.data, "foonet", FooNet)
    model = FooNet().eval()
    move(model)
    save_weights(model, tmp_path / "foonet.safetensors")
    picture = torch.rand(3, 70, 90)
    options = {"device": "cpu", "precision": "fp32", "tile": 32}
    result = upscale(picture, tmp_path / "foonet.safetensors", 2, **options)
    with torch.no_grad():
        expected = model(picture[None])[0].clamp(0, 1)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
    assert isinstance(make_fast(model, 2), FastModel)
