"""The wheel: small enough, complete, and working where nothing else of ours is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = 95_000_000  # bytes, docs/design.md


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the unpacked wheel and nothing else of ours."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_is_small_and_has_what_is_read_at_run_time(wheel):
    assert wheel.stat().st_size < LIMIT
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "srcli/weights_manifest.json",
        "srcli/py.typed",
        "srcli/evaluation/published.json",
        *(f"srcli/pages/page.{kind}" for kind in ("html", "css", "js")),
        "srcli/training/recipes/mrnet_fast.toml",
        "srcli/pretrained/mrnet.safetensors",
    ):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_wheel_upscales_a_picture(installed, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "srcli",
            "upscale",
            ROOT / "docs" / "sample" / "astronaut.png",
            "-o",
            tmp_path / "out.png",
            "-x",
            "2",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").is_file()
