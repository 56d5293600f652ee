"""The wheel: small enough, complete, and working where nothing else of ours is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
LIMIT = 95_000_000  # bytes, docs/design.md


def test_wheel_is_small_and_complete_and_upscales_a_picture(tmp_path, picture):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < LIMIT
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
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

    Image.fromarray(picture(12, 16)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "srcli", "upscale", "a.png", "-o", "b.png", "-x", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "b.png\n"), done.stderr
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (32, 24)
