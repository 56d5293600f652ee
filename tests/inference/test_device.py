"""Device, precision and tile size are chosen, or refused in a sentence."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srcli.errors import DeviceError, UsageError
from srcli.inference import device as device_module
from srcli.inference.device import (
    SMALLEST_TILE,
    activation_bytes_per_pixel,
    choose_device,
    choose_precision,
    choose_tile,
    free_memory,
    is_out_of_memory,
)
from srcli.models.base import ModelConfig, SRModel

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


class Shuffle(SRModel):
    """Convolution to 8 channels, ReLU, convolution to 4, pixel shuffle."""

    arch = "shuffle"
    color = "y"
    config_class = ModelConfig
    variants = {"shuffle": ModelConfig(scales=(2,))}  # noqa: RUF012
    multi_scale = False

    def __init__(self):
        super().__init__()
        self.config = ModelConfig(scales=(2,))
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)

    def predictions(self, lr, scale=None):
        return (F.pixel_shuffle(self.second(F.relu(self.first(lr))), 2),)

    def receptive_radius(self, scale=None):
        return 2


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def one_gpu(monkeypatch):
    """A CUDA device as far as questions go; the result sets its capability."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def set_capability(*version):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: version)

    return set_capability


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu():
    assert choose_device("auto") == CPU
    assert choose_device("CPU") == CPU


@pytest.mark.usefixtures("one_gpu")
def test_with_a_gpu_auto_is_cuda():
    assert choose_device("auto") == choose_device("cuda") == CUDA
    assert choose_device("cuda:0") == CUDA


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_an_error(name):
    with pytest.raises(DeviceError, match="--device cpu or auto"):
        choose_device(name)


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_number_too_high_is_an_error():
    with pytest.raises(DeviceError, match="cuda:7: the last one is cuda:0"):
        choose_device("cuda:7")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "cuda:-1"])
def test_a_device_that_is_none_is_a_usage_error(name):
    with pytest.raises(UsageError, match="unknown device"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capability", "best"), [((6, 1), "fp32"), ((7, 5), "fp16"), ((9, 0), "bf16")]
)
def test_auto_precision_follows_the_gpu(one_gpu, capability, best):
    one_gpu(*capability)
    assert choose_precision("auto", CUDA) == best


@pytest.mark.parametrize("has_bf16", [False, True])
def test_auto_precision_on_the_cpu_needs_hardware(monkeypatch, has_bf16):
    for query in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, query, lambda: has_bf16, raising=False)
    expected = "bf16" if has_bf16 and torch.backends.mkldnn.is_available() else "fp32"
    assert choose_precision("auto", CPU) == expected


def test_auto_precision_is_fp32_where_pytorch_cannot_tell(monkeypatch):
    for query in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, query, raising=False)
    assert choose_precision("auto", CPU) == "fp32"


def test_precisions_that_the_device_lacks_are_refused(one_gpu):
    one_gpu(7, 5)
    with pytest.raises(DeviceError, match="no bf16"):
        choose_precision("bf16", CUDA)
    with pytest.raises(UsageError, match="fp16 is slow on the CPU"):
        choose_precision("fp16", CPU)
    with pytest.raises(UsageError, match="unknown precision"):
        choose_precision("fp8", CPU)
    assert choose_precision("BF16", CPU) == "bf16"


def test_activation_memory_is_what_the_layers_hold_at_once():
    # At the ReLU: the input, and 8 channels before and after it.
    assert activation_bytes_per_pixel(Shuffle(), 2, torch.float32) == 4 * (1 + 8 + 8)
    # In half precision the input is there as it came, too, and a weight or two.
    half = activation_bytes_per_pixel(Shuffle(), 2, torch.bfloat16)
    assert 2 * (1 + 8 + 8) <= half <= 2 * (1 + 8 + 8) + 4


def test_measuring_leaves_the_model_as_it_was():
    model = Shuffle().train()
    activation_bytes_per_pixel(model, 2, torch.bfloat16)
    assert model.training
    assert model.first.weight.dtype == torch.float32
    assert model.first.weight.device == CPU


@pytest.mark.parametrize("free", [1_000, 3_000_000, 40_000_000, 1 << 50])
def test_tiles_fit_the_memory_and_stay_reasonable(monkeypatch, free):
    monkeypatch.setattr(device_module, "free_memory", lambda _: free)
    tile = choose_tile(Shuffle(), 2, CPU, torch.float32, overlap=10)
    assert SMALLEST_TILE <= tile <= 512
    if tile > SMALLEST_TILE:
        assert (tile + 20) ** 2 * 68 <= free


def test_less_memory_means_smaller_tiles(monkeypatch):
    tiles = []
    for free in (3_000_000, 6_000_000, 12_000_000):
        monkeypatch.setattr(device_module, "free_memory", lambda _, free=free: free)
        tiles.append(choose_tile(Shuffle(), 2, CPU, torch.float32, overlap=2))
    assert tiles[0] < tiles[1] < tiles[2]


def write_group(folder, names, limit, used, statistics):
    folder.mkdir(exist_ok=True)
    for name, text in zip(names, (limit, used, statistics), strict=True):
        (folder / name).write_text(f"{text}\n")


def test_a_containers_limit_counts(tmp_path):
    names = ("memory.max", "memory.current", "memory.stat")
    statistics = "anon 700\nfile 300\ninactive_file 200\n"
    write_group(tmp_path, names, 1000, 900, statistics)
    assert device_module._cgroup_headroom(tmp_path) == 300


def test_a_containers_limit_counts_in_version_1(tmp_path):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    statistics = "inactive_file 5\ntotal_inactive_file 50\n"
    write_group(tmp_path / "memory", names, 1000, 400, statistics)
    assert device_module._cgroup_headroom(tmp_path) in (605, 650)


def test_no_limit_is_no_limit(tmp_path):
    names = ("memory.max", "memory.current", "memory.stat")
    write_group(tmp_path, names, "max", 900, "inactive_file 0")
    assert device_module._cgroup_headroom(tmp_path) > 1 << 60
    assert device_module._cgroup_headroom(tmp_path / "none") > 1 << 60


def test_this_machine_has_some_free_memory():
    assert 1 << 20 < free_memory(CPU) < 1 << 50


def test_failed_allocations_are_recognised_and_other_errors_are_not():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50, dtype=torch.uint8)
    for error in (
        real.value,
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
