"""The machine in words: what counts is there, and nothing that names its owner."""

import platform
import socket
from types import SimpleNamespace

import pytest
import torch

import srcli
from srcli.training import machine
from srcli.training.report import describe_machine

CPU = torch.device("cpu")
CPUINFO = """processor\t: 0
model\t\t: 2
model name\t: Fast  Chip(R) 9000 @ 3.0 GHz
flags\t\t: fpu vme

processor\t: 1
model name\t: Another
"""


def test_everything_that_decides_a_run_is_told():
    found = describe_machine(CPU)
    assert list(found) == [
        "CPU",
        "memory",
        "operating system",
        "Python",
        "PyTorch",
        "srcli",
    ]
    assert found["Python"] == platform.python_version()
    assert found["PyTorch"] == torch.__version__
    assert found["srcli"] == srcli.__version__
    assert all(value and value == value.strip() for value in found.values())
    assert not any(socket.gethostname() in value.split() for value in found.values())


def test_cpu_comes_from_the_kernel_where_it_tells(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    monkeypatch.setattr(machine, "_CPUINFO", path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    found = describe_machine(CPU)["CPU"]
    assert found == "Fast Chip(R) 9000 @ 3.0 GHz, 3 cores, 1 thread"


@pytest.mark.parametrize(
    ("processor", "kind", "expected"),
    [
        ("arm", "arm64", "arm, 1 core"),
        ("", "riscv", "riscv, 1 core"),
        ("", "", "unknown, 1 core"),
    ],
)
def test_cpu_without_cpuinfo(tmp_path, monkeypatch, processor, kind, expected):
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "missing")
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: kind)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert describe_machine(CPU)["CPU"].startswith(expected)


def test_memory_in_gib(monkeypatch):
    memory = SimpleNamespace(total=12 * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert describe_machine(CPU)["memory"] == "12.0 GiB"


def test_gpu_is_named_with_its_memory(monkeypatch):
    properties = SimpleNamespace(name="Great GPU", total_memory=80 * 2**30)
    asked = []

    def describe(device):
        asked.append(device)
        return properties

    monkeypatch.setattr(torch.cuda, "get_device_properties", describe)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    device = torch.device("cuda", 1)
    assert describe_machine(device)["GPU"] == "Great GPU, 80.0 GiB, CUDA 13.0"
    assert asked == [device]
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert describe_machine(device)["GPU"] == "Great GPU, 80.0 GiB, ROCm 6.3"
    assert "Apple" in describe_machine(torch.device("mps"))["GPU"]


def test_system_without_a_release_file(monkeypatch):
    def missing():
        raise OSError("no os-release")

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    monkeypatch.setattr(platform, "platform", lambda terse: "Windows-11")
    assert describe_machine(CPU)["operating system"] == "Windows-11"
