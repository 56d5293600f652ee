"""The house: arrows point one way, and nothing heavy loads before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import srcli

PACKAGE = Path(srcli.__file__).parent
# A room may import from itself and from rooms further down.
FLOORS = {
    "cli": 6,
    "training": 5,
    "evaluation": 4,
    "bulk": 3,
    "inference": 2,
    "pretrained": 1,
    "models": 0,
    "pages": 0,
    "imaging": -1,
    "writing": -2,
    "storage": -3,
    "errors": -4,
    "progress": -4,
    "units": -4,
}


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_rooms(path):
    """Rooms of srcli that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            names = [node.module]
            if node.module == "srcli":
                names = [f"srcli.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "srcli" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1]


FILES = sorted(
    p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or "_" not in p.name
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    for other in imported_rooms(path):
        assert FLOORS[other] <= FLOORS[room], f"{room} must not import {other}"
        if FLOORS[other] == FLOORS[room]:
            assert other == room


def test_every_room_has_a_floor():
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert rooms <= FLOORS.keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *(
            [c, "--help"]
            for c in ("upscale", "benchmark", "train", "download", "models")
        ),
    ],
    ids=" ".join,
)
def test_help_loads_no_heavy_library(arguments):
    code = (
        "import sys\n"
        "from srcli.cli.app import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'requests', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout or srcli.__version__ in done.stdout


def test_import_srcli_is_cheap_and_names_load_late():
    code = (
        "import sys, srcli\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(srcli.upscale) and srcli.Upscaler and srcli.load_model\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="downscale"):
        srcli.downscale  # noqa: B018
