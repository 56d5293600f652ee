"""The machine, the device and the precision of a run, and tiles that fit its memory."""

from __future__ import annotations

import copy
import ctypes
import math
import os
import platform
import re
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srcli import __version__
from srcli.errors import DeviceError, UsageError, unknown
from srcli.models import winograd
from srcli.models.base import SRModel
from srcli.models.fused import thin_strips

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)

SMALLEST_TILE = 32  # px; tiles that are nearly all context are not worth their time
# px. On the CPU larger cores save little context more (docs/performance.md). On GPUs,
# feature maps stay below 2**31 values, beyond which kernels need 64-bit indices.
_LARGEST_TILE = 512
_LARGEST_WHOLE = 1024  # px; likewise, of networks whose tiles are not quite the whole
# The share of free memory that tensors may take. The libraries' reordered copies and
# work space come on top: on the CPU the peak of the process, measured over all five
# networks in fp32 and bf16, is 1.0 to 2.2 times `activation_bytes_per_pixel`.
_TENSOR_SHARE = MappingProxyType({"cpu": 0.2, "cuda": 0.5, "mps": 0.3})
_CPU_TENSORS = 1_350_000_000  # bytes; so that the peak stays below 3 GB
# How allocators say that they failed where they do not raise OutOfMemoryError:
# PyTorch's on the CPU (Linux, Windows), cuDNN and cuBLAS, and the CUDA driver.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
    "out of memory",
)
_GIB = 1024**3
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_sharers = 1  # processes that share the host's memory, see `share_memory`


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        phrase in text for phrase in _OUT_OF_MEMORY
    )


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        name: "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:N"
            or "mps".

    Raises:
        UsageError: If it is none of these.
        DeviceError: If the device is not there.
    """
    wanted = name.lower()
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("no mps device here: use --device cpu or auto")
    if wanted in ("cpu", "mps"):
        return torch.device(wanted)
    cuda = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    if cuda is None:
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0", "mps"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "no usable GPU or driver" if built else "PyTorch is built without CUDA"
        raise DeviceError(f"no CUDA device ({why}): use --device cpu or auto")
    chosen = int(cuda[1] or 0)
    if chosen >= count:
        raise DeviceError(f"no device cuda:{chosen}: the last one is cuda:{count - 1}")
    return torch.device("cuda", chosen)


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision to compute in; "auto" is the fastest that the device does well.

    Raises:
        UsageError: If it is none of these, or fp16 on the CPU.
        DeviceError: If the device cannot do it.
    """
    wanted = name.lower()
    if wanted == "auto":
        return _fastest_precision(device)
    known = next((known for known in DTYPES if known == wanted), None)
    if known is None:
        raise unknown("precision", name, ("auto", *DTYPES))
    if known == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is slow on the CPU: use --precision bf16, fp32 or auto")
    is_cuda = device.type == "cuda"
    if known == "bf16" and is_cuda and torch.cuda.get_device_capability(device) < (8,):
        raise DeviceError(f"{device} has no bf16: use --precision fp16, fp32 or auto")
    return known


def _fastest_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        # Volta brought fast fp16 (compute capability 7.0), Ampere bf16 (8.0).
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    # oneDNN uses a CPU's bf16, where it has it.
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has_bf16 = torch.backends.mkldnn.is_available() and any(  # type: ignore[no-untyped-call]
        getattr(torch.cpu, query, lambda: False)() for query in queries
    )
    return "bf16" if device.type == "cpu" and has_bf16 else "fp32"


def share_memory(processes: int) -> None:
    """Leave to each of so many processes on this machine its part of the memory."""
    global _sharers
    _sharers = processes


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = min(
        psutil.virtual_memory().available, _cgroup_headroom(Path("/sys/fs/cgroup"))
    )
    return free // _sharers


def _cgroup_headroom(root: Path) -> int:
    """Bytes that the control group (containers, batch systems) mounted here leaves."""
    for limit, used, folder in (
        ("memory.max", "memory.current", root),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", root / "memory"),
    ):
        try:
            allowed = int((folder / limit).read_text())
            taken = int((folder / used).read_text())
            details = (folder / "memory.stat").read_text()
        except (OSError, ValueError):  # no such group, or its limit is "max"
            continue
        # File cache counts as used, but the kernel gives it back when asked.
        cache = re.search(r"^(?:total_)?inactive_file (\d+)$", details, re.MULTILINE)
        return max(0, allowed - taken + (int(cache[1]) if cache else 0))
    return 1 << 62


def empty_cache(device: torch.device) -> None:
    """Give back the memory that PyTorch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@cache
def keep_freed_memory() -> None:
    """Have the C library hand freed memory out again, and not back to the system.

    A network frees and allocates a feature map with every layer. Fresh pages have to be
    cleared by the system first, which took a tenth of the time of 64-channel layers.
    Arrays above a quarter of a gigabyte, such as whole pictures, still go back at once.
    """
    _ask_glibc("mallopt", _M_MMAP_THRESHOLD, 1 << 28)
    _ask_glibc("mallopt", _M_TRIM_THRESHOLD, 1 << 30)


def give_back_memory() -> None:
    """Have the C library give back to the system what is free now.

    What was kept suits tiles of one size. Between the blocks for another size it would
    lie idle, half a gigabyte of it after a few tiles.
    """
    _ask_glibc("malloc_trim", 0)


def _ask_glibc(function: str, *values: int) -> None:
    """Call a function that only glibc has, where it is the C library."""
    with suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), function)(*values)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of all tensors that were made under it and still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True imports the compiler, for a second, to keep it out

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and not leaf.is_mkldnn:  # a weight
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # the same for all views of one storage
        if key not in self._known:
            self._known.add(key)
            self._live += storage.nbytes()
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._remove, key, storage.nbytes())

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def activation_bytes_per_pixel(model: SRModel, scale: int, dtype: torch.dtype) -> float:
    """Bytes of all tensors that live at once, at their peak, for each LR pixel.

    Measured on the CPU on small pictures, with a copy of the network. The growth
    between two sizes leaves out what does not depend on them, such as weights.
    """
    twin = copy.deepcopy(model).to("cpu").eval()
    small, large = model.probe_sides
    threads = torch.get_num_threads()
    if small:
        torch.set_num_threads(1)  # to wait for others takes longer than such pictures
    try:
        if small:  # the first time makes what is made once, as weights
            _measure_peak(twin, scale, dtype, small)
        peaks = [_measure_peak(twin, scale, dtype, side) for side in (small, large)]
    finally:
        torch.set_num_threads(threads)
    return (peaks[1] - peaks[0]) / (large**2 - small**2)


def _measure_peak(twin: SRModel, scale: int, dtype: torch.dtype, side: int) -> int:
    if side == 0:
        return 0
    half = dtype != torch.float32
    with (
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=half),  # as large as float16
        winograd.suspended(),  # whose threads are not followed
        thin_strips(),
        _LiveBytes() as memory,
    ):
        lr = torch.zeros(1, twin.channels, side, side)
        twin(lr.contiguous(memory_format=twin.memory_format), scale)
    return memory.peak


def choose_tile(
    model: SRModel, scale: int, device: torch.device, dtype: torch.dtype, overlap: int
) -> int:
    """The longest side of a tile's core, in LR pixels, that is fast and fits.

    On each side of the core comes `overlap`.
    """
    budget = free_memory(device) * _TENSOR_SHARE[device.type]
    if device.type == "cpu":
        budget = min(budget, _CPU_TENSORS)
    need = activation_bytes_per_pixel(model, scale, dtype)
    side = math.isqrt(int(budget / need)) - 2 * overlap
    return max(
        SMALLEST_TILE, min(side, _LARGEST_WHOLE if model.sees_whole else _LARGEST_TILE)
    )


def describe_machine(device: torch.device) -> dict[str, str]:
    """The machine that decides speed and figures, in words; no name of it or its user.

    CPU, memory, GPU if the device is one, operating system, Python, PyTorch, srcli.
    """
    try:
        details = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        details = ""
    found = re.search(r"^(?:model name|Model|cpu)\s*:\s*(\S.*)$", details, re.MULTILINE)
    name = found[1] if found else platform.processor() or platform.machine()
    cores = len(psutil.Process().cpu_affinity()) if found else os.cpu_count()
    machine = {
        "CPU": f"{name}; cores: {cores}, threads: {torch.get_num_threads()}",
        "memory": f"{psutil.virtual_memory().total / _GIB:.1f} GiB",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        # ROCm's GPUs answer to the same name.
        hip, cuda = torch.version.hip, torch.version.cuda
        kind = f"ROCm {hip}" if hip else f"CUDA {cuda}"
        size = f"{properties.total_memory / _GIB:.1f} GiB"
        machine["GPU"] = f"{properties.name}, {size}, {kind}"
    return machine | {
        "operating system": platform.platform(terse=True),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "srcli": __version__,
    }
