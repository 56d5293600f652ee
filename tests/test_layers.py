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


def imported_modules(path):
    """Modules of srcli that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("srcli.") and name != "srcli.__version__":
                yield name


def test_imports_point_down_and_no_two_files_import_each_other():
    edges = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) == 1 and parts[0].startswith("_"):
            continue
        for name in imported_modules(path):
            other = name.split(".")[1]
            assert other == parts[0] or FLOORS[other] < FLOORS[parts[0]], (path, name)
            for module in (name, name.rpartition(".")[0]):
                edges.add((".".join(("srcli", *parts)), module))
    assert not [edge for edge in edges if edge[::-1] in edges]


def test_every_room_has_a_floor():
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert rooms <= FLOORS.keys()


def test_help_loads_no_heavy_library():
    code = (
        "import sys\n"
        "from srcli.cli.app import app\n"
        "commands = ('upscale', 'benchmark', 'train', 'download', 'models')\n"
        "calls = (['--help'], ['--version'], *([c, '--help'] for c in commands))\n"
        "for call in calls:\n"
        "    try:\n        app(call)\n"
        "    except SystemExit as end:\n        assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'requests', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage") == 6
    assert srcli.__version__ in done.stdout


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
