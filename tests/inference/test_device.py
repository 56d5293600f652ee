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
def one_gpu(monkeypatch):
    """A CUDA device as far as questions go; the result sets its capability."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def set_capability(*version):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: version)

    return set_capability


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("CPU") == CPU
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(DeviceError, match="--device cpu or auto"):
            choose_device(name)
    for name in ("gpu", "cuda:x", ""):
        with pytest.raises(UsageError, match="unknown device"):
            choose_device(name)


@pytest.mark.parametrize(
    ("capability", "best"), [((6, 1), "fp32"), ((7, 5), "fp16"), ((9, 0), "bf16")]
)
def test_with_a_gpu(one_gpu, capability, best):
    one_gpu(*capability)
    assert choose_device("auto") == choose_device("cuda:0") == CUDA
    with pytest.raises(DeviceError, match="the last one is cuda:0"):
        choose_device("cuda:7")
    assert choose_precision("auto", CUDA) == best
    if best != "bf16":
        with pytest.raises(DeviceError, match="no bf16"):
            choose_precision("bf16", CUDA)


@pytest.mark.parametrize("has_bf16", [False, True, None])
def test_precision_on_the_cpu(monkeypatch, has_bf16):
    for query in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        if has_bf16 is None:  # PyTorch cannot tell
            monkeypatch.delattr(torch.cpu, query, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, query, lambda: has_bf16, raising=False)
    expected = "bf16" if has_bf16 and torch.backends.mkldnn.is_available() else "fp32"
    assert choose_precision("auto", CPU) == expected
    assert choose_precision("BF16", CPU) == "bf16"
    with pytest.raises(UsageError, match="fp16 is slow on the CPU"):
        choose_precision("fp16", CPU)
    with pytest.raises(UsageError, match="unknown precision"):
        choose_precision("fp8", CPU)


def test_activation_memory_is_what_the_layers_hold_at_once():
    model = Shuffle().train()
    # At the ReLU: the input, and 8 channels before and after it.
    assert activation_bytes_per_pixel(model, 2, torch.float32) == 4 * (1 + 8 + 8)
    # In half precision the input is there as it came, too, and a weight or two.
    half = activation_bytes_per_pixel(model, 2, torch.bfloat16)
    assert 2 * (1 + 8 + 8) <= half <= 2 * (1 + 8 + 8) + 4
    assert model.training
    assert model.first.weight.dtype == torch.float32


def test_tiles_fit_the_memory_and_stay_reasonable(monkeypatch):
    tiles = []
    for free in (1_000, 3_000_000, 12_000_000, 40_000_000, 1 << 50):
        monkeypatch.setattr(device_module, "free_memory", lambda _, free=free: free)
        tile = choose_tile(Shuffle(), 2, CPU, torch.float32, overlap=10)
        assert tile == SMALLEST_TILE or (tile + 20) ** 2 * 68 <= free
        tiles.append(tile)
    assert tiles[0] == SMALLEST_TILE < tiles[1] < tiles[2] < tiles[3] < tiles[4] == 512


V2 = ("memory.max", "memory.current", "memory.stat")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")


@pytest.mark.parametrize(
    ("folder", "names", "limit", "left"),
    [(".", V2, "1000", 300), ("memory", V1, "1000", 300), (".", V2, "max", 1 << 62)],
)
def test_a_containers_limit_counts(folder, names, limit, left, tmp_path):
    (tmp_path / folder).mkdir(exist_ok=True)
    texts = (limit, "900", "anon 700\nfile 300\ninactive_file 200")
    for name, text in zip(names, texts, strict=True):
        (tmp_path / folder / name).write_text(f"{text}\n")
    assert device_module._cgroup_headroom(tmp_path) == left
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
