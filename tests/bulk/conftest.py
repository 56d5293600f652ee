"""Pictures and what is to be done with them, for tests of bulk runs."""

import pytest
from PIL import Image

from srcli.bulk.steps import Work
from srcli.inference.naming import Naming
from srcli.inference.sizes import Goal


@pytest.fixture
def make_naming():
    """A function that makes a `Naming` of bicubic x2; keywords are its fields."""

    def make(output="out/", **fields):
        model, goal = fields.pop("model", "bicubic"), fields.pop("goal", Goal(2))
        return Naming(
            model=model, goal=goal, output=str(output), **{"run": "r0", **fields}
        )

    return make


@pytest.fixture
def make_work():
    """A function that makes a `Work` of bicubic x2; keywords are its fields."""

    def make(naming, upscaler=None, **fields):
        return Work(
            naming=naming,
            upscaler=upscaler or {"model": "bicubic", "scale": 2},
            **fields,
        )

    return make


@pytest.fixture
def many(tmp_path, picture):
    """A folder of 100 small pictures in two folders, and three that are broken."""
    root = tmp_path / "many"
    for number in range(100):
        place = root / f"part{number % 2}" / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(12 + number % 7, 16)).save(place)
    (root / "part0" / "cut.png").write_bytes((root / "part0/000.png").read_bytes()[:80])
    (root / "part1" / "empty.jpg").touch()
    (root / "part1" / "text.png").write_text("no picture")
    return root
