"""Pictures for the tests of the commands."""

import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path, picture):
    """A folder of two small pictures to train on."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(picture(48, 52 + number)).save(folder / f"{number}.png")
    return folder
