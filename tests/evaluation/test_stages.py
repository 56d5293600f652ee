"""Stages: every prediction of a network, measured as by hand and from one run."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from by_hand import luma, pictures_of, rounded
from PIL import Image

from srcli.errors import UsageError
from srcli.evaluation import contenders, metrics
from srcli.evaluation.contenders import Engine, Selection
from srcli.evaluation.measurement import BenchmarkRequest, run_benchmark
from srcli.evaluation.stages import name_stages
from srcli.imaging.resize import imresize
from srcli.models.drcn import DRCN, DRCNConfig
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.rrrn import RRRN, RRRNConfig
from srcli.pretrained.weight_file import save_weights

PLAIN = Engine(device="cpu", precision="fp32", tile=0)
SMALL = {
    "width": 4, "sub_networks": 3, "iterations": 1, "extract_layers": 1,
    "extract_ratio": 1,
}  # fmt: skip


def shaken(network):
    """Random weights, also where training begins at zero, and not too wild."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return network.eval()


@pytest.fixture
def rrrn():
    return shaken(RRRN(RRRNConfig(**SMALL)))


@pytest.fixture
def drcn():
    return shaken(DRCN(DRCNConfig(width=6, recursions=3)))


@pytest.fixture
def measure(tmp_path, folder):
    """A function that gives the row of a network, or of bicubic too."""

    def run(network, *, engine=PLAIN, stages=True, protocol="auto", **options):
        file = tmp_path / "network.safetensors"
        save_weights(network, file)
        request = BenchmarkRequest(
            datasets=(str(folder),),
            selection=Selection(scales=(2,), weights=file, protocol=protocol),
            engine=engine,
            stages=stages,
            **options,
        )
        bicubic, row = run_benchmark(request)
        assert bicubic.stages == ()
        return row

    return run


def predictions(network, planes):
    """What the network predicts from (h, w, C) in [0, 255], in the same form."""
    tensor = torch.from_numpy(planes.transpose(2, 0, 1)).float()[None] / 255
    with torch.no_grad():
        images = network.predictions(tensor)
    return [image[0].double().numpy().transpose(1, 2, 0) * 255 for image in images]


def figures(lumas, reference):
    """PSNR and SSIM of each luma."""
    cut = (slice(2, -2), slice(2, -2))
    errors = [np.mean((luma - reference)[cut] ** 2) for luma in lumas]
    psnrs = [10 * np.log10(255**2 / error) for error in errors]
    return [
        (psnr, metrics.ssim(luma, reference, 2))
        for psnr, luma in zip(psnrs, lumas, strict=True)
    ]


def check(row, expected):
    """Compare a row with the figures of each stage of each picture."""
    found = [[(s.psnr, s.ssim) for s in p.stages] for p in row.pictures]
    assert len({stage for stages in found for stage in stages}) == np.size(found) / 2
    assert (np.abs(np.subtract(found, expected)) < (2e-3, 2e-5)).all()
    means = [(stage.psnr, stage.ssim) for stage in row.stages]
    np.testing.assert_allclose(means, np.mean(found, axis=0))
    assert [(p.psnr, p.ssim) for p in row.pictures] == [s[-1] for s in found]
    assert (row.psnr, row.ssim) == means[-1]


def test_every_image_of_an_rgb_network_also_of_grey_pictures(measure, folder, rrrn):
    Image.open(folder / "two.png").convert("L").save(folder / "two.png")
    expected = []
    for hr in pictures_of(folder):
        lr = imresize(hr, 0.5)
        if hr.ndim == 2:
            srs = predictions(rrrn, np.repeat(lr[:, :, None], 3, axis=2))
            lumas = [rounded(sr.mean(axis=2)) for sr in srs]
        else:
            lumas = [luma(rounded(sr)) for sr in predictions(rrrn, lr)]
        expected.append(figures(lumas, hr.astype(float) if hr.ndim == 2 else luma(hr)))
    row = measure(rrrn)
    check(row, expected)
    assert row.stage_names == ("sub-network 1", "sub-network 2", "sub-network 3")
    assert row.stage_weights == ()  # the last one is no sum of the others


def test_every_recursion_of_a_y_network_and_the_ensemble(measure, folder, drcn):
    expected = []
    for hr in pictures_of(folder):
        y = rounded(luma(hr))
        lr = imresize(y, 0.5)[:, :, None]
        srs = [rounded(sr)[:, :, 0] for sr in predictions(drcn, lr)]
        expected.append(figures(srs, y))
    row = measure(drcn)
    check(row, expected)
    assert row.stage_names == (
        "recursion 1", "recursion 2", "recursion 3", "ensemble",
    )  # fmt: skip


def test_ensemble_is_taken_of_every_stage(measure, folder, rrrn):
    def averaged(lr):
        total = 0
        for turned in (False, True):
            for down, across in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
                view = (lr.swapaxes(0, 1) if turned else lr)[::down, ::across]
                images = np.stack(predictions(rrrn, view.copy()))[:, ::down, ::across]
                total = total + (images.swapaxes(1, 2) if turned else images)
        return total / 8

    expected = [
        figures([luma(rounded(s)) for s in averaged(imresize(hr, 0.5))], luma(hr))
        for hr in pictures_of(folder)
    ]
    row = measure(rrrn, engine=replace(PLAIN, ensemble=True))
    check(row, expected)
    assert row.ensemble


def test_stages_are_the_same_in_tiles(measure, rrrn):
    whole = measure(rrrn).stages
    tiled = measure(rrrn, engine=replace(PLAIN, tile=16, overlap="exact")).stages
    assert [s.psnr for s in tiled] == pytest.approx([s.psnr for s in whole], abs=2e-3)
    assert [s.ssim for s in tiled] == pytest.approx([s.ssim for s in whole], abs=2e-5)


def test_the_row_and_its_saved_pictures_are_those_without_stages(
    measure, rrrn, tmp_path
):
    staged = measure(rrrn, save_images=tmp_path / "staged")
    plain = measure(rrrn, stages=False, save_images=tmp_path / "plain")
    assert (plain.stages, plain.stage_names) == ((), ())
    assert (staged.psnr, staged.ssim) == (plain.psnr, plain.ssim)
    assert (staged.parameters, staged.macs_720p) == (plain.parameters, plain.macs_720p)
    files = sorted(path for path in (tmp_path / "plain").rglob("*.png"))
    assert len(files) == 4
    for path in files:
        other = tmp_path / "staged" / path.relative_to(tmp_path / "plain")
        assert other.read_bytes() == path.read_bytes()


def test_weights_are_those_of_the_recursions_that_run_and_their_sum(measure, drcn):
    with torch.no_grad():
        drcn.weights.copy_(torch.tensor([-0.25, 0.5, 0.625]))
    shares = [weight / 0.875 for weight in (-0.25, 0.5, 0.625)]
    assert measure(drcn).stage_weights == pytest.approx([*shares, 1.0])
    drcn.limit_recursions(2)  # either takes over half of the third's
    row = measure(drcn)
    assert row.stage_names == ("recursion 1", "recursion 2", "ensemble")
    assert row.stage_weights == pytest.approx([0.0625 / 0.875, 0.8125 / 0.875, 1.0])
    assert measure(drcn, stages=False).stage_weights == ()


@pytest.mark.parametrize(
    ("network", "limit", "others"),
    [
        (DRCN(DRCNConfig(width=4, recursions=2, supervision=False)), None, "rrrn"),
        (DRRN(DRRNConfig(width=4, units=2)), None, "drcn or rrrn"),
        (RRRN(RRRNConfig(**SMALL)), 1, "drcn"),
    ],
)
def test_a_single_prediction_is_no_stage(measure, network, limit, others):
    network.limit_recursions(limit)
    assert name_stages(network, 2) == ()
    said = f"{network.arch}: no stages to show, choose {others} or leave out --stages"
    with pytest.raises(UsageError, match=said):
        measure(network)


def test_networks_without_stages_stand_beside_those_with(
    folder, rrrn, monkeypatch, caplog
):
    networks = {"rrrn": rrrn, "drrn": shaken(DRRN(DRRNConfig(width=4, units=2)))}
    monkeypatch.setattr(contenders, "load_model", lambda name, *_, **__: networks[name])
    request = BenchmarkRequest(
        datasets=(str(folder),),
        selection=Selection(models=("drrn", "rrrn"), scales=(2,)),
        engine=PLAIN,
        stages=True,
    )
    caplog.set_level(logging.INFO)
    rows = {row.model: row for row in run_benchmark(request)}
    assert [len(rows[name].stages) for name in ("bicubic", "drrn", "rrrn")] == [0, 0, 3]
    assert caplog.text.count("drrn makes a single prediction") == 1
    assert "rrrn makes" not in caplog.text
