"""Fixtures shared by all tests: fixed seeds, small pictures made by code, runners."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seed():
    """The same random numbers in every test, whatever ran before it."""
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global state


@pytest.fixture
def picture():
    """A function that makes a smooth colour picture with edges, (H, W, 3) uint8."""

    def make(height: int = 24, width: int = 32, channels: int = 3) -> np.ndarray:
        y, x = np.mgrid[0:height, 0:width].astype(float)
        planes = [
            127 + 90 * np.sin(x / 3 + c) * np.cos(y / (4 + c)) + 35 * ((x + y) % 11 < 5)
            for c in range(channels)
        ]
        return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)

    return make


@pytest.fixture
def run():
    """Run a command in this process; the result has exit_code, stdout and stderr."""
    from typer.testing import CliRunner

    from srcli.cli.app import app

    def invoke(*arguments: object, **options):
        return CliRunner().invoke(app, [str(a) for a in arguments], **options)

    return invoke


@pytest.fixture
def run_process():
    """Run a command in a process of its own."""

    def invoke(*arguments: object, **options):
        command = [sys.executable, "-m", "srcli", *(str(a) for a in arguments)]
        return subprocess.run(command, capture_output=True, timeout=120, **options)

    return invoke
