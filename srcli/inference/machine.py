"""The machine that something ran on, in words."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil
import torch

from srcli import __version__

_GIB = 1024**3


def describe_machine(device: torch.device) -> dict[str, str]:
    """The machine that decides speed and figures; no name of it or its user.

    Args:
        device: Where the network runs; a GPU is described too.

    Returns:
        Values for people by name: CPU, memory, GPU where there is one, operating
        system, Python, PyTorch, srcli.
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
