"""Copies of a data set's pictures, known by name, size and looks, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from srcli.pretrained.datasets import find_dataset
from srcli.pretrained.originals import find_originals
from srcli.training.data import find_pictures


def put(folder, names, seed=0):
    """Pictures of the same, of 96x72 pixels or of the size after a colon."""
    for number, entry in enumerate(names.split()):
        name, _, size = entry.partition(":")
        width, height = map(int, (size or "96x72").split("x"))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number if seed is None else seed)
        coarse = Image.fromarray(draw.integers(0, 256, (9, 12), dtype=np.uint8))
        whole = coarse.resize((384, 288), Image.Resampling.BICUBIC)
        whole.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return folder


# What is there, in each line first what must be left (+); the layouts are of public
# archives, widespread scripts and trainers.
LEFT_OUT = """
+HR/x4/0.png LR/x4/0.png:24x18 Bic/x4/0.png
+gt/0.png lq/0.png:24x18
+GT/0.PNG Lq/0.jpg:24x18
+original/a.png GTmod12/a.png LRbicx4/a.png:24x18
+DIV2K_train_HR/01.png DIV2K_train_LR_bicubic/X2/01x2.png:48x36 valid_noise50/01.png
+DIV2K_train_HR/01.png DIV2K_train_LR_mild/01x4m.png:24x18 LR_wild/01x4w3.png:24x18
+HR_sub/01_s1.png +HR_sub/01_s2.png LR_bicubic/X4_sub/01_s1.png:24x18
+HR/a.png:255x253 LR_bicubic/X4/ax4.png:63x63
+img_1_SRF_4_HR.png img_1_SRF_4_LR.png:24x18 img_1_SRF_4_bicubic.png img_1_SRF_4_A.png
+baby_x2_HR.png baby_x2_LR.png:48x36
+HR/Set5/x2/a_HR_x2.png LR/LRBI/Set5/x2/a_LRBI_x2.png:48x36
+0.png 0_bicLRx4.png:24x18 0_LRBI_x4.png:24x18 0_4x.png:24x18 0_LR2x.png
+C_001_HR.png C_001_LR4.png C_002_LR4.png
+train_HR/p_x1.png train_LR/p_x4.png:24x18
+hr_128/0.png lr_16/0.png:12x9 sr_16_128/0.png
+train_sharp/0/0.png train_sharp_bicubic/X4/0/0.png:24x18 train_blur_comp/0/0.png
+a/sharp/1.png a/blur/1.png a/blur_gamma/1.png
+GT/c/0.png BIx4/c/0.png:24x18 BDx4/c/0.png:24x18
+a/sequences/1.png a_matlabLRx4/sequences/1.png:24x18
+high_res/1.png low-resolution/1.png:24x18
+HQ/1.png LQ/1.png:24x18
+HR_0001.png LR_0001.png:24x18
+0001HR.png 0001LR.png:24x18
+s/hr.png s/lr.png:24x18 s/LR001.png:24x18
+HR/a.png +b.png a.png:48x36
+a.png +b.png lr_x2/a.png:48x36
+images/a.png lr_x4/a.png:24x18 bicubic_rgb_2x/a.png
+a.png X2/a.png:48x36 x8/a.png:12x9 3x/a.png:32x24
+0001.png 0001x4.png:24x18 0001_x2.png:48x36
+a.png thumbs/a.png:24x18 a_thumb.png:24x18 a-32x24.png:32x24
+big/a.png little/a.png:24x18 a_web.png:48x36 a(1).png:32x24 my-a.png:24x18
+b.png b_mrnet_x4.png:384x288 b_rrrn_dn_x3.png:288x216 B_Bicubic_X2.PNG:192x144
+b.png b_mrnet_x2.5.png:240x180 b_mrnet_200x150.png:200x150 c/b_mrnet_x2.png:192x144
+b.png x4/b.png:384x288 upscaled/b_out.png:384x288
+LR/0.png:24x18 SR/0.png
"""


@pytest.mark.parametrize("case", LEFT_OUT.strip().splitlines())
def test_copies_are_left_out_and_said_to_be_in_one_line(tmp_path, caplog, case):
    caplog.set_level("INFO", "srcli")
    put(tmp_path, case.replace("+", ""))
    left = [entry[1:].split(":")[0] for entry in case.split() if entry[0] == "+"]
    expected = sorted(tmp_path / name for name in left)
    assert find_pictures([tmp_path]) == expected
    assert sorted(find_dataset(str(tmp_path)).pictures(2)) == expected
    (said,) = [text for text in caplog.messages if "left out" in text]
    count = len(case.split())
    gone = count - len(expected)
    assert said.startswith(f"{tmp_path}: {gone} of {count} pictures left out")


KEPT = {
    "named-like-it": "bic.png lr.png x4.png small.png 300x200.png",
    "word-in-front": "pen.png bic_pen.png:48x36 out_pen.png:48x36",
    "lr-alone": "lr/a.png lr/b.png",
    "another-folder-lr": "phone/a.png phone/1.png lr/b.png lr/1.png",
    "another-camera": "a/IMG_1.png b/IMG_1.png:48x36 IMG_1_2.png:24x18 IMG_1_out.png",
    "another-word": "photo_original.png lr/a.png targets/c.png",
    "no-counterpart": "a.png X2/b.png:48x36 c_small.png:48x36 0002x4.png:24x18",
    "a-car": "bmw.png bmw_x5.png bmwx3.png car.png car_bmw_x5.png:100x75",
    "other-proportions": "1.png lr/1.png:72x96 1_thumb.png:48x48",
    "larger": "1.png lr/1.png:384x288",
    "beside-gt": "a.png gt/b.png c.png hr/d.png",
    "same-name": "a.png a.jpg sub/a.png",
    "rescaled-on-purpose": "DF2K_HR/1.png DF2K_multiscale/1T0.png:72x54",
}


@pytest.mark.parametrize("there", KEPT.values(), ids=KEPT)
def test_what_is_not_provably_a_copy_stays(tmp_path, caplog, there):
    caplog.set_level("INFO", "srcli")
    put(tmp_path, there, seed=None)
    assert len(find_originals(tmp_path)) == len(there.split())
    assert "left out" not in caplog.text


def test_of_pictures_kept_for_each_scale_one_is_taken(tmp_path):
    put(tmp_path, "HR/x2/a_HR_x2.png HR/x3/a_HR_x3.png LR/x3/a_LR_x3.png:32x24")
    assert [path.name for path in find_originals(tmp_path, 3)] == ["a_HR_x3.png"]
    assert [path.name for path in find_originals(tmp_path)] == ["a_HR_x2.png"]


def test_a_damaged_original_takes_no_copy_along(tmp_path):
    put(tmp_path, "HR/a.png HR/b.png x4/a.png:24x18 x4/b.png:24x18")
    (tmp_path / "HR" / "a.png").write_bytes(b"no picture")
    found = [path.relative_to(tmp_path).as_posix() for path in find_originals(tmp_path)]
    assert sorted(found) == ["HR/a.png", "HR/b.png", "x4/a.png"]


def test_what_is_named_is_taken_as_it_is(tmp_path):
    put(tmp_path, "HR/a.png LR/X2/a.png:48x36")
    assert len(find_originals(tmp_path / "LR")) == 1
    named = tmp_path / "LR/X2/a.png"
    assert find_pictures([named, tmp_path]) == sorted([named, tmp_path / "HR/a.png"])


def test_many_folders_of_copies_are_one_line(tmp_path, caplog):
    caplog.set_level("INFO", "srcli")
    put(tmp_path, " ".join(f"{a}/gt/1.png {a}/gt/2.png" for a in "abcde"), seed=None)
    put(tmp_path, " ".join(f"{a}/lq/1.png {a}/lq/2.png" for a in "abcde"))
    assert len(find_originals(tmp_path)) == 10
    assert "10 of 20 pictures" in caplog.text
    for name in "abc":
        assert f"{name}/lq/1.png" in caplog.text
