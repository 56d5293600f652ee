"""Pictures for the tests of training."""

import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path, picture):
    """A folder of three small pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(60 + number, 70)).save(folder / f"{number}.png")
    return folder
