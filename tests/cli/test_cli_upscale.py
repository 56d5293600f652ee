"""`srcli upscale` as a user meets it; no weights are needed for these."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from srcli.errors import WeightsError
from srcli.imaging.files import Picture
from srcli.imaging.resize import imresize
from srcli.inference.cost import RunStats
from srcli.inference.sizes import Goal
from srcli.pretrained import catalog


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """An own working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def upscaler(monkeypatch):
    """A stand-in for the networks: bicubic; it records how it was made."""
    made = []

    class Stub:
        name = "mrnet"

        def __init__(self, model, scale, **options):
            made.append(SimpleNamespace(model=model, scale=scale, **options))
            self.goal = Goal(scale, options["width"], options["height"])
            self.stats = RunStats("cpu", "fp32", tiles=1)
            if model == "untrained":
                raise WeightsError("no weights for untrained x4")

        def runners(self, height, width):
            return []

        def describe(self, height, width):
            rows, columns = self.goal.size(height, width)
            exact = self.goal.scale in (2, 3, 4)
            return "mrnet x3" + ("" if exact else f", then bicubic to {columns}x{rows}")

        def enlarge(self, picture, region, progress):
            progress.start("mrnet", 1)
            size = self.goal.size(picture.height, picture.width)
            pixels = imresize(picture.pixels, size=size)
            return Picture(pixels, None, picture.metadata, picture.format)

    monkeypatch.setattr("srcli.inference.upscaler.Upscaler", Stub)
    return made


def make(*names, size=(8, 6), mode="RGB"):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, 77).save(name)


def files():
    return {str(path): path.read_bytes() for path in Path().rglob("*.*")}


def look(path):
    """A picture's size, and its pixels."""
    with Image.open(path) as image:
        return image.size, np.asarray(image)


def fails(result, code, message):
    """One line on stderr, nothing on stdout, and the exit code."""
    assert (result.exit_code, result.stdout) == (code, ""), message
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(Path().rglob("*.part"))
    return True


def test_a_picture_gets_larger(run, upscaler):
    make("photo.png")
    result = run("upscale", "photo.png")
    assert (result.exit_code, result.stdout) == (0, "photo_mrnet_x4.png\n")
    assert look("photo_mrnet_x4.png")[0] == (32, 24)
    assert (upscaler[0].scale, result.stderr) == (4.0, "")
    result = run("upscale", "photo.png", "-x", "2.5", "--format", "jpeg")
    assert result.stdout == "photo_mrnet_x2.5.jpg\n"
    assert result.stderr == "photo.png: mrnet x3, then bicubic to 20x15\n"
    assert run("-q", "upscale", "photo.png", "-x", "1.5").stderr == ""


def test_bicubic_is_a_model_like_the_others(run):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    result = run("upscale", "photo.png", "-m", "bicubic", "-x", "2")
    assert (result.exit_code, result.stdout) == (0, "photo_bicubic_x2.png\n")
    assert (look("photo_bicubic_x2.png")[1] == imresize(pixels, 2)).all()


def test_every_option_arrives(run, upscaler):
    make("photo.png")
    Path("w.safetensors").write_bytes(b"")
    options = "--device cpu --precision fp32 --tile 64 --tile-overlap exact --ensemble"
    options += " --weights w.safetensors --degradation bd --width 20 -m drrn"
    result = run("upscale", "photo.png", *options.split())
    assert result.stdout == "photo_w_20x15.png\n"
    assert vars(upscaler[0]) == {
        "model": "drrn", "scale": None, "width": 20, "height": None, "device": "cpu",
        "precision": "fp32", "tile": 64, "overlap": "exact", "ensemble": True,
        "weights": Path("w.safetensors"), "degradation": "bd",
    }  # fmt: skip
    run("upscale", "photo.png", "--tile", "0", "--tile-overlap", "7", "-x", "2.5")
    assert (upscaler[1].tile, upscaler[1].overlap) == (0, 7)
    assert upscaler[1].scale == 2.5


# Weights for noise and blur


def test_noisy_pictures_get_their_own_weights_factor_and_name(run, shelf):
    make("photo.png")
    noisy = ("upscale", "photo.png", "-m", "RRRN", "--degradation", "DN")
    result = run(*noisy)
    assert (result.exit_code, result.stdout) == (0, "photo_rrrn_dn_x3.png\n")
    assert (result.stderr, look("photo_rrrn_dn_x3.png")[0]) == ("", (24, 18))
    result = run(*noisy, "-x", "4")
    assert (result.exit_code, result.stdout) == (0, "photo_rrrn_dn_x4.png\n")
    assert "rrrn dn x3, then rrrn x2, then bicubic to 32x24" in result.stderr
    result = run(*noisy, "--width", "16", "--dry-run")
    assert result.stdout == "photo_rrrn_dn_16x12.png\n"
    # A weight file brings its degradation and factor.
    file = shelf.folder / "3dn.safetensors"
    result = run("upscale", "photo.png", "--weights", file)
    assert (result.exit_code, result.stdout) == (0, "photo_3dn_x3.png\n")
    file = shelf.folder / "2bi.safetensors"
    result = run("upscale", "photo.png", "-m", file, "--dry-run")
    assert result.stdout == "photo_2bi_x2.png\n"


def test_weights_that_do_not_serve(run, shelf, monkeypatch):
    make("photo.png")
    before = files()
    noisy = shelf.folder / "3dn.safetensors"
    for options, code, message in (
        (["--degradation", "dn"], 5, "mrnet has no weights for dn; rrrn has: use -m"),
        (["--degradation", "dn", "-m", "bicubic"], 2, "the same for every degradation"),
        (["--degradation", "dn", "-m", "rrrnn", "-x", "3"], 2, "did you mean rrrn"),
        (["--weights", noisy, "--degradation", "bd"], 2, "is for degradation dn, not"),
        (["--weights", "none.safetensors"], 5, "no weight file at none.safetensors"),
        (["--weights", f"{'a' * 300}.safetensors"], 5, "a.safetensors"),
    ):
        assert fails(run("upscale", "photo.png", *options), code, message)
    monkeypatch.setattr(catalog, "manifest", tuple)
    result = run("upscale", "photo.png", "--weights", noisy, "-x", "4")
    assert fails(result, 5, "3dn makes the first pass, x3; enlarging further needs")
    assert files() == before


def test_noise_leaves_deep_grey_deep(run, shelf):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    Image.fromarray(coarse).save("coarse.png")
    Image.fromarray(coarse.astype(np.uint16) * 257).save("deep.png")
    options = "-m rrrn --degradation dn -x 4 --precision fp32 --device cpu"
    result = run("upscale", "coarse.png", "deep.png", *options.split())
    assert result.exit_code == 0
    deep, coarse = (look(f"{n}_rrrn_dn_x4.png")[1] for n in ("deep", "coarse"))
    assert (deep.dtype, coarse.dtype) == (np.uint16, np.uint8)
    # Between the passes the coarse picture is rounded, which the second enlarges.
    assert np.abs(deep / 257 - coarse).max() < 3
    assert np.count_nonzero(deep % 257) > deep.size / 2  # not stretched from 8 bits


def test_streams(run, shelf):
    Image.effect_noise((8, 6), 60).convert("RGB").save("photo.png")
    data = Path("photo.png").read_bytes()
    noisy = shelf.folder / "3dn.safetensors"
    before = files()
    seen = []
    for options in (
        ["-o", "-", "-m", "rrrn", "--degradation", "dn"],
        ["-o", "-", "--weights", noisy],
        ["-m", "rrrn", "-x", "3"],
    ):
        result = run("upscale", "-", *options, input=data)
        assert (result.exit_code, result.stderr) == (0, "")
        seen.append(look(io.BytesIO(result.stdout_bytes))[1])
    assert (seen[0] == seen[1]).all()
    assert (seen[0] != seen[2]).any()
    result = run("upscale", "-", "-m", "bicubic", "--format", "jpg", input=data)
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert (image.format, image.size) == ("JPEG", (32, 24))
    assert files() == before
    result = run("upscale", "-", "-o", "o.png", "-m", "bicubic", input=data)
    assert (result.stdout, look("o.png")[0]) == ("o.png\n", (32, 24))


# Names, results and records


def test_output_name_decides_the_format(run, upscaler):
    make("photo.png")
    for name, format in (("o.jpg", "JPEG"), ("o.tif", "TIFF"), ("o.webp", "WEBP")):
        assert run("upscale", "photo.png", "-o", name).stdout == f"{name}\n"
        with Image.open(name) as image:
            assert image.format == format


RECORD = {
    "input", "output", "status", "width", "height", "seconds", "device", "precision",
    "tiles", "bytes", "comparison", "estimate", "error",
}  # fmt: skip


def test_folders_comparisons_and_json(run, upscaler):
    make("in/a.png", "in/deep/b.jpg")
    call = ("upscale", "in", "-r", "-o", "out", "-x", "2", "--compare")
    result = run(*call, "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["results"]
    assert [(row["input"], row["output"], row["status"]) for row in rows] == [
        ("in/a.png", "out/a_mrnet_x2.png", "done"),
        ("in/deep/b.jpg", "out/deep/b_mrnet_x2.jpg", "done"),
    ]
    assert {(row["width"], row["height"]) for row in rows} == {(16, 12)}
    assert (set(rows[0]), len(upscaler)) == (RECORD, 1)
    for row in rows:
        assert row["comparison"] == f"{row['output']}.html"
        text = Path(row["comparison"]).read_text("utf-8")
        for words in (Path(row["input"]).name, "8x6 to 16x12 pixels", "mrnet x3"):
            assert words in text
    before = files()
    Path("out/a_mrnet_x2.png").unlink()
    assert fails(run(*call), 4, "out/a_mrnet_x2.png.html exists already")
    assert run(*call, "--overwrite").exit_code == 0
    assert files().keys() == before.keys()
    assert fails(run("upscale", "in/a.png", "-o", "-", "--compare"), 2, "--compare")


def test_dry_run_touches_nothing(run, upscaler):
    make("in/a.png")
    before = files()
    result = run("upscale", "in", "-o", "out", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "out/a_mrnet_x4.png\n")
    result = run("upscale", "in", "-o", "out", "--dry-run", "--json")
    document = json.loads(result.stdout)
    (row,) = document["results"]
    assert (row["status"], row["width"], row["height"]) == ("planned", 32, 24)
    assert row["estimate"] == document["estimate"]
    assert set(row["estimate"]) == {"seconds", "memory", "bytes"}
    assert files() == before
    assert not Path("out").exists()
    assert len(upscaler) == 2  # a wrong model would have been an error
    result = run("upscale", "in", "-m", "untrained", "-o", "out/")
    assert fails(result, 5, "no weights for untrained")
    assert not Path("out").exists()


def test_partial_failure(run, upscaler):
    make("a.png")
    Path("text.png").write_text("dear diary " * 9)
    call = ("upscale", "text.png", "a.png", "none.png", "--overwrite")
    result = run(*call, "--json")
    assert result.exit_code == 7
    rows = json.loads(result.stdout)["results"]
    assert [row["status"] for row in rows] == ["failed", "done", "failed"]
    assert [row["output"] for row in rows] == [None, "a_mrnet_x4.png", None]
    assert rows[2]["error"] == "none.png does not exist"
    assert "text.png is not a picture" in result.stderr
    assert "2 of 3 inputs failed" in result.stderr
    assert look("a_mrnet_x4.png")[0] == (32, 24)
    lines = run(*call, "--json-lines").stdout.splitlines()
    again = [json.loads(line) for line in lines]
    assert [row.keys() for row in again] == [row.keys() for row in rows]
    result = run("upscale", "x.png", "y.png")
    assert result.exit_code == 3
    assert "all 2 inputs failed" in result.stderr


def test_existing_results_are_replaced_or_left(run, upscaler):
    make("a.png", "b.png")
    Path("a_mrnet_x4.png").write_bytes(b"mine")
    result = run("upscale", "a.png", "b.png", "--skip-existing")
    assert (result.exit_code, result.stdout) == (0, "b_mrnet_x4.png\n")
    assert "a_mrnet_x4.png exists: skipped" in result.stderr
    assert Path("a_mrnet_x4.png").read_bytes() == b"mine"
    result = run("upscale", "a.png", "b.png", "--skip-existing", "--json")
    rows = json.loads(result.stdout)["results"]
    assert [row["status"] for row in rows] == ["skipped", "skipped"]
    assert len(upscaler) == 1  # nothing to do, nothing loaded
    assert run("upscale", "a.png", "--overwrite").exit_code == 0
    assert look("a_mrnet_x4.png")[0] == (32, 24)


def test_interruption_shows_what_is_done(run, upscaler, monkeypatch):
    make("a.png", "b.png")
    import srcli.inference.upscaler

    class Interrupted(srcli.inference.upscaler.Upscaler):
        count = 0

        def enlarge(self, picture, region, progress):
            self.count += 1
            if self.count == 2:
                raise KeyboardInterrupt
            return super().enlarge(picture, region, progress)

    monkeypatch.setattr("srcli.inference.upscaler.Upscaler", Interrupted)
    assert run("upscale", "a.png", "b.png").exit_code == 130
    assert look("a_mrnet_x4.png")[0] == (32, 24)
    assert sorted(files()) == ["a.png", "a_mrnet_x4.png", "b.png"]


def test_metadata_can_be_stripped(run, upscaler):
    Image.new("RGB", (8, 6)).save("a.png", dpi=(300, 300))
    run("upscale", "a.png", "-o", "kept.png")
    run("upscale", "a.png", "-o", "bare.png", "--strip-metadata")
    with Image.open("kept.png") as kept, Image.open("bare.png") as bare:
        assert round(kept.info["dpi"][0]) == 300
        assert "dpi" not in bare.info


def test_a_frame_is_chosen(run, upscaler):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save("film.gif", save_all=True, append_images=frames[1:])
    message = "film.gif has 2 frames: choose one with --frame 1 to 2"
    assert fails(run("upscale", "film.gif"), 3, message)
    result = run("upscale", "film.gif", "--frame", "2", "-x", "2")
    assert result.stdout == "film_frame2_mrnet_x2.png\n"
    with Image.open("film_frame2_mrnet_x2.png") as image:
        assert image.convert("RGB").getpixel((5, 5)) == (0, 0, 255)
    assert fails(run("upscale", "film.gif", "--frame", "3"), 3, "there is no frame 3")
    # Files of one frame come along, under their usual names.
    make("photo.png")
    call = ("upscale", "photo.png", "film.gif", "--frame", "1", "-x", "2")
    assert run(*call).stdout.split() == [
        "photo_mrnet_x2.png", "film_frame1_mrnet_x2.png"
    ]  # fmt: skip
    # A later run does not take the results for pictures.
    result = run("upscale", ".", "--frame", "1", "-x", "2", "--overwrite")
    assert result.stdout.split() == ["film_frame1_mrnet_x2.png", "photo_mrnet_x2.png"]


# Refusals

USAGE = {
    "-x 4 --width 20": "--scale contradicts --width and --height",
    "-x 9": "1 to 8",
    "-x nan": "1 to 8",
    "--width 1000": "1 to 8",
    "--tile 8": "--tile must be at least 16 pixels, not 8",
    "--tile -1": "--tile must be auto",
    "--tile-overlap some": "--tile-overlap must be auto, exact",
    "--format wepb": "did you mean webp",
    "--degradation dm": "unknown degradation 'dm'",
    "--overwrite --skip-existing": "contradict each other",
    "--json --json-lines": "contradict each other",
    "-o out.png --format jpg": "contradict each other",
    "-o out": "does not say its format",
    "-o - --json": "cannot share stdout",
    "b.png -o out.png": "one file for several pictures",
    "--engine spark": "unknown engine 'spark'",
    "--workers 2": "--workers is for --engine ray",
    "--engine ray --device mps": "takes --device auto, cpu or cuda",
    "--engine ray -o -": "takes no standard input or output",
}


@pytest.mark.parametrize("options", USAGE)
def test_usage_errors(options, run, upscaler):
    make("photo.png", "b.png")
    before = files()
    assert fails(run("upscale", "photo.png", *options.split()), 2, USAGE[options])
    assert files() == before
    assert not upscaler


def test_ray_that_is_not_installed_is_named(run, upscaler, monkeypatch):
    make("a.png")
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("upscale", "a.png", "--engine", "ray")
    assert fails(result, 2, "--engine ray needs Ray Data: pip install 'srcli[ray]'")


def test_input_errors(run, upscaler):
    Path("text.png").write_text("dear diary " * 9)
    Path("empty.png").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:-500])
    Path("nothing").mkdir()
    os.mkfifo("pipe.png")
    for name, message in {
        "none.png": "none.png does not exist",
        "text.png": "text.png is not a picture",
        "empty.png": "empty.png is empty",
        "nothing": "folder nothing holds no pictures",
        "pipe.png": "is no file but a device or pipe",
    }.items():
        assert fails(run("upscale", name), 3, message)
    assert not upscaler  # no network is loaded for these
    assert fails(run("upscale", "cut.png"), 3, "cut.png is damaged or cut off")


def test_output_errors(run, upscaler):
    make("a.png")
    make("half.png", mode="RGBA")
    Path("a_mrnet_x4.png").write_bytes(b"mine")
    before = files()
    for arguments, message in {
        "a.png": "a_mrnet_x4.png exists already: choose --overwrite",
        "a.png -o a.png --overwrite": "a.png is itself an input",
        "a.png -o a_mrnet_x4.png/": "cannot be written",
        "half.png -o b.jpg": "no transparency",
    }.items():
        assert fails(run("upscale", *arguments.split()), 4, message)
    assert files() == before


@pytest.mark.parametrize("options", [(), ("-o", "new/folder"), ("--compare",)])
def test_a_result_whose_name_is_too_long_fails_alone(options, run):
    tag = "_bicubic_x2.png.html" if "--compare" in options else "_bicubic_x2.png"
    fitting = "n" * (255 - len(tag))
    make("in/z.png", f"in/{fitting}.png", f"in/{fitting}n.png")
    result = run("upscale", "in", "-m", "bicubic", "-x", "2", *options)
    assert result.exit_code == 7
    assert result.stderr.count("its name is too long: choose a shorter one") == 1
    assert len(result.stdout.split()) == 2


def test_a_picture_larger_than_memory_becomes_a_tiled_tiff(run, monkeypatch, picture):
    import tifffile

    from srcli.inference import jobs

    monkeypatch.setattr(jobs, "LARGE", 1000)
    scan = picture(50, 70)
    tifffile.imwrite("scan.tif", scan, tile=(16, 16), photometric="rgb")
    done = run("upscale", "scan.tif", "-m", "bicubic", "-x", 2.5, "--json")
    assert done.exit_code == 0, done.stderr
    (record,) = json.loads(done.stdout)["results"]
    assert (record["status"], record["width"]) == ("done", 175)
    path = Path("scan_bicubic_x2.5.tif")
    assert record["bytes"] == path.stat().st_size
    with tifffile.TiffFile(path) as tiff:
        assert (tiff.is_bigtiff, tiff.pages.first.is_tiled) == (True, True)
        np.testing.assert_array_equal(tiff.asarray(), imresize(scan, 2.5))
    path.unlink()
    large = ("upscale", "scan.tif", "-m", "bicubic")
    assert run(*large, "-o", "o/", "--dry-run").exit_code == 0
    assert fails(run(*large, "--compare"), 4, "scan.tif is too large for a page")
    assert fails(run(*large, "-o", "-"), 4, "scan.tif is too large for a stream")
    with Path("scan.tif").open("r+b") as file:
        file.truncate(Path("scan.tif").stat().st_size - 900)
    assert run(*large).exit_code == 3
    assert list(files()) == ["scan.tif"]


# Processes of their own


def test_a_process_and_a_name_that_is_no_text(run_process):
    name = os.fsdecode(b"-caf\xe9 \n.png")
    make("made.png")
    try:
        Path("made.png").rename(name)
    except OSError:
        pytest.skip("this file system refuses such a name")
    result = run_process("upscale", f"./{name}", "-m", "bicubic", "-x", "2")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == rb"-caf\xe9 \x0a_bicubic_x2.png" + b"\n"
    assert len(list(Path().glob("*bicubic_x2.png"))) == 1


def test_enlarging_loads_nothing_that_it_does_not_use():
    make("a.png")
    code = (
        "import sys\n"
        "from srcli.cli.app import app\n"
        "try:\n    app(['upscale', 'a.png', '-m', 'mrnet', '-o', 'b.png'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "unused = {'matplotlib', 'requests', 'scipy', 'pandas', 'torchvision',\n"
        "    'srcli.training', 'srcli.evaluation', 'srcli.pretrained.transfer',\n"
        "    'torch._dynamo', 'sympy', 'numba', 'torch.utils.tensorboard'}\n"
        "assert not unused & set(sys.modules), unused & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
    assert look("b.png")[0] == (32, 24)
