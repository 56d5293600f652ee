"""Networks that others have made, from the files that they share; read by spandrel.

A file of weights as PyTorch writes it (`.pth`, `.pt`, `.ckpt`) is a pickle, which can
run any program when it is opened. spandrel's unpickler knows tensors and the containers
that hold them and refuses everything else; no such file is read in another way.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from srcli.errors import DeviceError, SrcliError, UsageError, WeightsError
from srcli.models.base import ModelConfig, SRModel
from srcli.pretrained.catalog import PICKLES
from srcli.pretrained.weight_file import WANTED, read_tensors

READ_SCALES = (1, 2, 3, 4, 8)
# LR pixels. Measured on convolutional networks (docs/design.md, "Tiles").
_OVERLAP = 32
# LR pixels. Windows of attention are mostly 8, 16 or 32 wide, and few networks say.
_WINDOW = 32
_PROBED_SIDE = 64  # LR pixels of a picture that says what every pixel takes


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunityConfig(ModelConfig):
    """The scale of a network that is made elsewhere; the rest is its file's."""

    def __post_init__(self) -> None:
        """Nothing to check: `read_community` has."""


class CommunityNetwork(SRModel):
    """A network of spandrel's, under the contract of ours.

    One with a single channel gets luma. The results are in [0, 1].

    Args:
        descriptor: What spandrel has read, an `ImageModelDescriptor`.
    """

    config_class = CommunityConfig
    multi_scale = False
    # Such networks reshape their features by `view`, which another layout breaks.
    memory_format = torch.contiguous_format

    def __init__(self, descriptor: Any) -> None:  # noqa: ANN401 - no types
        super().__init__()
        self.config = CommunityConfig(scales=(descriptor.scale,))
        self.arch = descriptor.architecture.name  # type: ignore[misc] # unlike ours
        self.color = "y" if descriptor.input_channels == 1 else "rgb"
        bf16 = ("bf16",) if descriptor.supports_bfloat16 else ()
        fp16 = ("fp16",) if descriptor.supports_half else ()
        self.precisions = ("fp32", *bf16, *fp16)
        needs = descriptor.size_requirements
        said = (getattr(descriptor.model, n, None) for n in ("window_size", "pad_size"))
        windows = (size for size in said if isinstance(size, int) and size > 0)
        self.size_multiple = math.lcm(needs.multiple_of, _WINDOW, *windows)
        # Some fill up small pictures by themselves, which then take what large ones do.
        self.probe_sides = (0, max(_PROBED_SIDE, self.size_multiple))
        self._overlap = max(_OVERLAP, -(-needs.minimum // 2))
        layers = descriptor.model.modules()
        self.sees_whole = descriptor.tiling.name != "SUPPORTED" or any(
            isinstance(layer, nn.AdaptiveAvgPool2d) for layer in layers
        )
        self.tags = tuple(descriptor.tags)
        self.network = descriptor.model
        self._descriptor = descriptor

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The enlarged picture; sides that the network does not take are mirrored."""
        self.resolve_scale(scale)
        devices = [lr.device] if lr.device.type == "cuda" else []
        # Masks that a network makes for each picture are made where they are needed.
        there = lr.device if devices else nullcontext()
        with _without_warnings(), torch.random.fork_rng(devices), there:
            torch.manual_seed(0)  # some draw noise: the same in every tile
            return (self._descriptor(lr.clone()),)  # some work in place

    def find_core(self) -> nn.Module:
        """The network without what spandrel does around it."""
        return self.network

    def with_core(self, core: SRModel) -> CommunityNetwork:
        """A copy that runs another module in place of the network."""
        twin = copy.copy(self)
        twin._modules = {"network": core}
        twin._descriptor = copy.copy(self._descriptor)
        twin._descriptor._model = core
        return twin

    def receptive_radius(self, scale: int | None = None) -> int:
        """Refused: no file says how far its network sees.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"how far a network of {self.arch} sees is not known: --tile-overlap takes "
            f"auto ({self.tile_overlap(scale)} pixels) or a number"
        )

    def tile_overlap(self, scale: int | None = None) -> int:  # noqa: ARG002
        """Enough for convolutional networks (docs/design.md), or half the minimum."""
        return self._overlap

    def count_macs(self, height: int = 720, width: int = 1280) -> int:
        """Multiply-accumulates for one output picture: products and convolutions.

        Counted as the growth between two small pictures, which leaves out what is done
        once whatever the size, and scaled by area.
        """
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - slow

        scale = self.config.scales[0]
        sides, flops = (self.size_multiple, 2 * self.size_multiple), []
        for side in sides:
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                self(torch.zeros(1, self.channels, side, side))
            flops.append(counter.get_total_flops())
        growth = (flops[1] - flops[0]) / (sides[1] ** 2 - sides[0] ** 2)
        return round(growth / 2 * height * width / scale**2)


def read_community(path: Path) -> CommunityNetwork:
    """The network of a file that was not written by srcli, in evaluation mode.

    Raises:
        UsageError: If the extra for such files is not installed.
        WeightsError: If the file is damaged, no model, or of a network that does not
            enlarge pictures or is not known.
        DeviceError: If the memory does not suffice.
    """
    spandrel = import_spandrel()
    weights = _read_weights(path, spandrel)
    misfit = (
        "holds weights that fit no network: the file is damaged, or of a variant that "
        "is not known"
    )
    with _explained(path, misfit), _without_warnings():
        try:
            found = spandrel.MAIN_REGISTRY.load(weights)
        except spandrel.UnsupportedModelError as error:
            raise WeightsError(
                f"{path} holds no network that srcli knows: it reads its own and those "
                "of spandrel (docs/usage.md)"
            ) from error
    _check_use(path, found)
    network = CommunityNetwork(found).eval()
    if not all(value.isfinite().all() for value in network.parameters()):
        raise WeightsError(f"the weights {path} are damaged: some are no numbers")
    return network


def _read_weights(path: Path, spandrel: ModuleType) -> dict[str, Any]:
    """Tensors by name."""
    found: Any
    with _explained(path, f"is damaged or cut off, or no model: {WANTED}"):
        if path.suffix.lower() in PICKLES:
            with path.open("rb") as file:
                _refuse_programs(path, file)
                # Whatever its name: of a .pt, spandrel would first run what is in it.
                found = spandrel.ModelLoader("cpu")._load_pth(file)
        else:
            found = read_tensors(path)
        is_table = isinstance(found, Mapping)
        weights = spandrel.canonicalize_state_dict(found) if is_table else {}
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"{path} holds no weights: {WANTED}")
    return dict(weights)


def _refuse_programs(path: Path, file: BinaryIO) -> None:
    """Refuse TorchScript, which PyTorch would run whoever is to unpickle."""
    if file.read(4) == b"PK\x03\x04":  # as PyTorch decides it
        file.seek(0)
        # PyTorch's own reader: another one may find other names in a made-up archive.
        if "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():
            raise WeightsError(
                f"{path} is a TorchScript program, which is not run: {WANTED}"
            )
    file.seek(0)


@contextmanager
def _explained(path: Path, said: str) -> Iterator[None]:
    """Whatever a file makes others' code raise, which has no bounds, as one error."""
    try:
        yield
    except SrcliError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise DeviceError(f"the memory does not suffice to read {path}") from error
        if "is forbidden" in str(error):
            said = (
                "holds more than weights: opening it could run programs, so it is left "
                "alone; a .safetensors file of the model cannot"
            )
        raise WeightsError(f"{path} {said}") from error


def _check_use(path: Path, found: Any) -> None:  # noqa: ANN401 - spandrel's
    """Refuse networks that do something else than enlarge pictures."""
    others = {"Inpainting": "fills holes in pictures", "FaceSR": "restores faces"}
    channels = found.input_channels, found.output_channels
    if found.purpose in others:
        name, does = found.architecture.name, others[found.purpose]
        fault = f"holds a network of {name}, which {does}: srcli enlarges pictures"
    elif channels not in ((1, 1), (3, 3)):
        fault = (
            f"takes pictures of {channels[0]} channels and makes some of "
            f"{channels[1]}: networks on grey or RGB pictures are read"
        )
    elif found.scale not in READ_SCALES:
        known = ", ".join(f"x{scale}" for scale in READ_SCALES)
        fault = f"enlarges by {found.scale}: {known} are read"
    else:
        return
    raise WeightsError(f"{path} {fault}")


def import_spandrel() -> ModuleType:
    """The library that knows the networks.

    Raises:
        UsageError: If it is not installed.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise UsageError(
            "models that srcli has not written need an extra: "
            "pip install 'srcli[spandrel]'"
        )
    with _without_torchvision(), _without_warnings():
        return importlib.import_module("spandrel")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep from the user what PyTorch has to say to the authors of others' code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Have imports of torchvision succeed, whether or not it fits the installed torch.

    spandrel takes three functions of it for two networks that enlarge nothing.
    """
    functional = "torchvision.transforms.functional"
    parts = ("torchvision", "torchvision.transforms", functional)
    if "torchvision" in sys.modules or "spandrel" in sys.modules:
        yield
        return
    for name in parts:
        sys.modules[name] = ModuleType(name)
    for name in ("InterpolationMode", "normalize", "rotate"):
        setattr(sys.modules[functional], name, None)
    try:
        yield
    finally:
        for name in parts:
            del sys.modules[name]
