"""Small pictures in a working folder of their own, and the jobs for them."""

from pathlib import Path

import pytest
from PIL import Image

from srcli.inference.jobs import plan_jobs
from srcli.inference.naming import Naming
from srcli.inference.sizes import Goal
from srcli.inference.sources import expand_inputs


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes picture files in the working folder."""
    monkeypatch.chdir(tmp_path)

    def make_files(*names, size=(8, 6), mode="RGB"):
        for name in names:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            suffix = path.suffix.lower()
            format = {".jpg": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:])
            Image.new(mode, size, 77).save(path, format)

    return make_files


@pytest.fixture
def plan():
    """A function that plans jobs; keywords but `recursive` are fields of `Naming`."""

    def plan_inputs(*inputs, recursive=False, goal=None, **naming):
        sources = expand_inputs([str(text) for text in inputs], recursive=recursive)
        goal = goal or Goal(2)
        return plan_jobs(sources, Naming(model="mrnet", goal=goal, **naming))

    return plan_inputs
