"""Fixtures shared by all tests: fixed seeds, small pictures made by code, runners."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes whose threads wait for each other take many times as long as one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


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
def folder(tmp_path, picture):
    """A data set of two colour pictures whose sides are multiples of no scale."""
    from PIL import Image

    root = tmp_path / "pictures"
    root.mkdir()
    for name, size in {"one": (45, 55), "two": (37, 61)}.items():
        Image.fromarray(picture(*size)).save(root / f"{name}.png")
    return root


@pytest.fixture
def pictures(tmp_path, picture):
    """A folder of three small pictures to train on."""
    from PIL import Image

    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(3):
        Image.fromarray(picture(60 + number, 70)).save(root / f"{number}.png")
    return root


@pytest.fixture
def make_entry():
    """A function that lists a weight file with this content; keywords are fields."""
    from srcli.pretrained.catalog import WeightEntry

    def make(file: str, body: bytes = b"", model: str = "mrnet", **fields):
        return WeightEntry(**{
            "file": file,
            "sha256": hashlib.sha256(body).hexdigest(),
            "bytes": len(body),
            "model": model,
            "arch": model,
            "scales": (2,),
            "config": {},
            "parameters": 1,
            "data": "some pictures",
            "data_licence": "CC0",
            "recipe": "fast",
            "steps": 1,
            **fields,
        })  # fmt: skip

    return make


@pytest.fixture
def run():
    """Run a command in this process; the result has exit_code, stdout and stderr."""
    from typer.testing import CliRunner

    from srcli.cli import app as program

    def invoke(*arguments: object, app=program.app, **options):
        return CliRunner().invoke(app, [str(a) for a in arguments], **options)

    # Commands send the log to their own stderr, which later tests want to see.
    log = logging.getLogger("srcli")
    saved = log.handlers[:], log.level, log.propagate
    yield invoke
    log.handlers[:], log.level, log.propagate = saved


@pytest.fixture
def run_process():
    """Run a command in a process of its own."""

    def invoke(*arguments: object, **options):
        command = [sys.executable, "-m", "srcli", *(str(a) for a in arguments)]
        return subprocess.run(command, capture_output=True, timeout=600, **options)

    return invoke


@pytest.fixture
def save_rrrn():
    """A function that writes a small RRRN as `srcli train` leaves it; the network."""
    import torch

    from srcli.models.rrrn import RRRN, RRRNConfig
    from srcli.pretrained.weight_file import save_weights

    def save(path, scale: int = 3, degradation: str | None = None) -> RRRN:
        config = RRRNConfig(
            scales=(scale,), width=4, sub_networks=1, iterations=1,
            extract_layers=1, extract_ratio=1,
        )  # fmt: skip
        network = RRRN(config).eval()
        with torch.no_grad():
            for parameter in network.reconstruct.parameters():
                parameter.mul_(3)  # so that no two do the same
        recipe = json.dumps({"model": "rrrn", "degradation": degradation})
        save_weights(network, path, {} if degradation is None else {"recipe": recipe})
        return network

    return save


@pytest.fixture
def shelf(tmp_path, monkeypatch, save_rrrn, make_entry):
    """RRRN for x2, for x3 and for noise at x3: all the weights that there are.

    They lie in `folder`, the cache's; `networks` has them by their files' stems "2bi",
    "3bi" and "3dn".
    """
    from srcli.models.counting import count_parameters
    from srcli.pretrained import catalog

    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    networks, entries = {}, []
    for scale, degradation in ((2, "bi"), (3, "bi"), (3, "dn")):
        path = folder / f"{scale}{degradation}.safetensors"
        network = networks[path.stem] = save_rrrn(path, scale, degradation)
        entries.append(
            make_entry(
                path.name,
                path.read_bytes(),
                "rrrn",
                scales=(scale,),
                config=network.config.as_dict(),
                parameters=count_parameters(network),
                degradation=degradation,
            )
        )
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "manifest", lambda: tuple(entries))
    monkeypatch.setattr(catalog, "bundled_folder", lambda: tmp_path / "bundled")
    return SimpleNamespace(folder=folder, networks=networks)


class _PageReader(HTMLParser):
    """What a page holds: `images`, `links`, `tags`, `texts`."""

    def __init__(self):
        super().__init__()
        self.images, self.links, self.tags, self.texts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        # Whatever a browser would fetch by itself, or follow on a click.
        fetching = ("src", "href", "srcset", "data", "poster", "action", "background")
        self.links += [value for name, value in attributes if name in fetching]
        if tag == "img":
            self.images.append(self._open(known))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        """All that is written, in one line."""
        return " ".join(" ".join(self.texts).split())

    @staticmethod
    def _open(known):
        from PIL import Image

        head, body = known["src"].split(",", 1)
        image = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
        image.load()
        assert head == f"data:image/{image.format.lower()};base64"
        return SimpleNamespace(
            alt=known["alt"],
            kind=known.get("class"),
            size=(int(known["width"]), int(known["height"])),
            pixels=np.asarray(image),
            info=image.info,
        )


@pytest.fixture
def read_page():
    """A function that reads a page and makes sure that it asks for no other file."""

    def read(path) -> _PageReader:
        page = _PageReader()
        page.feed(path.read_text("utf-8"))
        page.close()
        assert all(link.startswith(("data:", "#")) for link in page.links), page.links
        assert not {"link", "iframe", "object", "base"} & {
            tag for tag, known in page.tags if known.get("href") != "data:,"
        }
        styles = "".join(page.texts).split("url(")[1:]
        assert all(style.startswith('"data:') for style in styles)
        assert "@import" not in "".join(page.texts)
        return page

    return read
