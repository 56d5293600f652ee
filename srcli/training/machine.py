"""The machine that a run ran on, in words."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil
import torch

from srcli import __version__

_CPUINFO = Path("/proc/cpuinfo")
_GIB = 1024**3


def describe_machine(device: torch.device) -> dict[str, str]:
    """What decides a run's speed and figures; no name of the machine or its user.

    Args:
        device: Where the network runs; a GPU is described too.

    Returns:
        Values for people by name: CPU, memory, GPU where there is one, operating
        system, Python, PyTorch, srcli.
    """
    return {
        "CPU": f"{_name_cpu()}, {_count_cores()}",
        "memory": f"{psutil.virtual_memory().total / _GIB:.1f} GiB",
        **_describe_gpu(device),
        "operating system": _name_system(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "srcli": __version__,
    }


def _name_cpu() -> str:
    """The processor's name, or the kind of processor where nothing tells it."""
    try:
        details = _CPUINFO.read_text("utf-8", errors="replace")
    except OSError:
        details = ""
    found = re.search(r"^(?:model name|Model|cpu)\s*:\s*(\S.*)$", details, re.MULTILINE)
    name = found[1] if found else platform.processor() or platform.machine()
    return " ".join(name.split()) or "unknown"


def _count_cores() -> str:
    """The cores that this process may use, as the system counts them."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        usable = os.cpu_count() or 1
    threads = torch.get_num_threads()
    cores = "1 core" if usable == 1 else f"{usable} cores"
    return f"{cores}, {threads} thread{'' if threads == 1 else 's'}"


def _describe_gpu(device: torch.device) -> dict[str, str]:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        size = f"{properties.total_memory / _GIB:.1f} GiB"
        # ROCm's GPUs answer to the same name.
        kind = (
            f"ROCm {torch.version.hip}"
            if torch.version.hip
            else f"CUDA {torch.version.cuda}"
        )
        return {"GPU": f"{properties.name}, {size}, {kind}"}
    return {"GPU": "Apple, by Metal"} if device.type == "mps" else {}


def _name_system() -> str:
    """The system with its version, and the kernel's where that is another thing."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)
    return f"{name}, {platform.system()} {platform.release()}"
