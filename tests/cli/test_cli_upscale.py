"""`srcli upscale` as a user meets it; no weights are needed for these."""

import io
import json
import os
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


def size_of(path):
    with Image.open(path) as image:
        image.load()
        return image.size


def test_a_picture_gets_larger(run, upscaler):
    make("photo.png")
    result = run("upscale", "photo.png")
    assert (result.exit_code, result.stdout) == (0, "photo_mrnet_x4.png\n")
    assert size_of("photo_mrnet_x4.png") == (32, 24)
    assert upscaler[0].scale == 4.0
    assert result.stderr == ""


@pytest.mark.usefixtures("shelf")
def test_noisy_pictures_get_their_own_weights_factor_and_name(run):
    make("photo.png")
    result = run("upscale", "photo.png", "-m", "RRRN", "--degradation", "DN")
    assert (result.exit_code, result.stdout) == (0, "photo_rrrn_dn_x3.png\n")
    assert (result.stderr, size_of("photo_rrrn_dn_x3.png")) == ("", (24, 18))
    result = run("upscale", "photo.png", "-m", "rrrn", "--degradation", "dn", "-x", "4")
    assert (result.exit_code, result.stdout) == (0, "photo_rrrn_dn_x4.png\n")
    line = "photo.png: rrrn dn x3, then rrrn x2, then bicubic to 32x24"
    assert " ".join(result.stderr.split()) == line
    options = "-m rrrn --degradation dn --width 16"
    result = run("upscale", "photo.png", *options.split())
    assert result.stdout == "photo_rrrn_dn_16x12.png\n"
    assert "rrrn dn x3, then bicubic to 16x12" in result.stderr
    result = run("upscale", "photo.png", "-m", "rrrn", "-x", "2")
    assert result.stdout == "photo_rrrn_x2.png\n"


def test_a_weight_file_brings_its_degradation_and_factor(run, shelf):
    make("photo.png")
    noisy = shelf.folder / "3dn.safetensors"
    result = run("upscale", "photo.png", "--weights", noisy)
    assert (result.exit_code, result.stdout) == (0, "photo_3dn_x3.png\n")
    before = files()
    result = run("upscale", "photo.png", "--weights", noisy, "--degradation", "bd")
    assert fails(result, 2, "3dn.safetensors is for degradation dn, not bd")
    result = run(
        "upscale", "photo.png", "-m", shelf.folder / "2bi.safetensors", "--dry-run"
    )
    assert result.stdout == "photo_2bi_x2.png\n"
    result = run("upscale", "photo.png", "--weights", "none.safetensors")
    assert fails(result, 5, "no weight file at none.safetensors")
    assert files() == before


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("size", ["", "-x 3", "-x 4", "--width 20"])
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("", 5, "mrnet has no weights for dn; rrrn has: use -m rrrn"),
        ("-m bicubic", 2, "bicubic is the same for every degradation"),
        ("-m rrrnn", 2, "did you mean rrrn"),
    ],
)
def test_degradations_that_a_model_does_not_know(run, size, options, code, message):
    make("photo.png")
    before = files()
    result = run(
        "upscale", "photo.png", "--degradation", "dn", *f"{options} {size}".split()
    )
    assert fails(result, code, message)
    assert files() == before


def test_files_further_than_one_pass_without_ordinary_weights(run, shelf, monkeypatch):
    make("photo.png")
    before = files()
    monkeypatch.setattr(catalog, "manifest", tuple)
    noisy = shelf.folder / "3dn.safetensors"
    for size in ("-x", "4"), ("--width", "40"):
        result = run("upscale", "photo.png", "--weights", noisy, *size)
        assert fails(result, 5, "3dn makes the first pass, x3; enlarging further needs")
    result = run("upscale", "photo.png", "--weights", f"{'a' * 300}.safetensors")
    assert fails(result, 5, "a.safetensors")
    assert files() == before


@pytest.mark.usefixtures("shelf")
def test_noise_leaves_deep_grey_deep(run):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    Image.fromarray(coarse).save("coarse.png")
    Image.fromarray(coarse.astype(np.uint16) * 257).save("deep.png")
    options = "-m rrrn --degradation dn -x 4 --precision fp32 --device cpu"
    for name in ("coarse", "deep"):
        result = run("upscale", f"{name}.png", *options.split())
        assert (result.exit_code, result.stdout) == (0, f"{name}_rrrn_dn_x4.png\n")
    with Image.open("deep_rrrn_dn_x4.png") as image:
        assert image.mode == "I;16"
        deep = np.asarray(image).astype(float)
    with Image.open("coarse_rrrn_dn_x4.png") as image:
        assert (image.mode, image.size) == ("L", (32, 24))
        # Between the passes the coarse picture is rounded, which the second enlarges.
        assert np.abs(deep / 257 - np.asarray(image)).max() < 3
    assert np.count_nonzero(deep % 257) > deep.size / 2  # not stretched from 8 bits


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_noise_leaves_transparency_to_bicubic(run, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, len(mode)), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    assert run("upscale", "photo.png", "-m", "rrrn", "--degradation", "dn").stdout
    with Image.open("photo_rrrn_dn_x3.png") as image:
        assert (image.mode, image.size) == (mode, (24, 18))
        expected = imresize(pixels[:, :, -1:], 3)
        assert (np.asarray(image)[:, :, -1:] == expected).all()


def test_noisy_pictures_in_a_pipe(run, shelf):
    Image.effect_noise((8, 6), 60).convert("RGB").save("photo.png")
    data = Path("photo.png").read_bytes()
    noisy = shelf.folder / "3dn.safetensors"
    before = files()
    seen = []
    for options in (["-m", "rrrn", "--degradation", "dn"], ["--weights", noisy]):
        result = run("upscale", "-", "-o", "-", *options, input=data)
        assert (result.exit_code, result.stderr) == (0, "")
        with Image.open(io.BytesIO(result.stdout_bytes)) as image:
            assert (image.format, image.size) == ("PNG", (24, 18))
            seen.append(np.asarray(image))
    assert (seen[0] == seen[1]).all()
    assert files() == before
    result = run("upscale", "-", "-o", "-", "-m", "rrrn", "-x", "3", input=data)
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert (np.asarray(image) != seen[0]).any()


def test_bicubic_is_a_model_like_the_others(run):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    result = run("upscale", "photo.png", "-m", "bicubic", "-x", "2")
    assert (result.exit_code, result.stdout) == (0, "photo_bicubic_x2.png\n")
    with Image.open("photo_bicubic_x2.png") as image:
        assert (np.asarray(image) == imresize(pixels, 2)).all()


def test_every_option_arrives(run, upscaler):
    make("photo.png")
    Path("w.safetensors").write_bytes(b"")
    options = "--device cpu --precision fp32 --tile 64 --tile-overlap exact --ensemble"
    options += " --weights w.safetensors --degradation bd --width 20 -m drrn"
    result = run("upscale", "photo.png", *options.split())
    assert result.stdout == "photo_w_20x15.png\n"
    assert vars(upscaler[0]) == {
        "model": "drrn",
        "scale": None,
        "width": 20,
        "height": None,
        "device": "cpu",
        "precision": "fp32",
        "tile": 64,
        "overlap": "exact",
        "ensemble": True,
        "weights": Path("w.safetensors"),
        "degradation": "bd",
    }
    run("upscale", "photo.png", "--tile", "0", "--tile-overlap", "7", "-x", "2.5")
    assert (upscaler[1].tile, upscaler[1].overlap) == (0, 7)
    assert upscaler[1].scale == 2.5


def test_arbitrary_factors_say_what_was_done(run, upscaler):
    make("photo.png")
    result = run("upscale", "photo.png", "-x", "2.5")
    assert result.stdout == "photo_mrnet_x2.5.png\n"
    line = "photo.png: mrnet x3, then bicubic to 20x15"
    assert " ".join(result.stderr.split()) == line
    assert upscaler
    assert run("-q", "upscale", "photo.png", "-x", "1.5").stderr == ""


@pytest.mark.parametrize(
    ("name", "format"), [("o.jpg", "JPEG"), ("o.tif", "TIFF"), ("o.webp", "WEBP")]
)
def test_output_name_decides_the_format(name, format, run, upscaler):
    make("photo.png")
    assert run("upscale", "photo.png", "-o", name).stdout == f"{name}\n"
    with Image.open(name) as image:
        assert image.format == format
    assert upscaler


def test_format_has_aliases(run, upscaler):
    make("photo.png")
    result = run("upscale", "photo.png", "--format", "jpeg")
    assert result.stdout == "photo_mrnet_x4.jpg\n"
    assert upscaler


def test_folders_and_json(run, upscaler):
    make("in/a.png", "in/deep/b.jpg")
    result = run("upscale", "in", "-r", "-o", "out", "-x", "2", "--json")
    rows = json.loads(result.stdout)["results"]
    assert [(row["input"], row["output"], row["status"]) for row in rows] == [
        ("in/a.png", "out/a_mrnet_x2.png", "done"),
        ("in/deep/b.jpg", "out/deep/b_mrnet_x2.jpg", "done"),
    ]
    assert {(row["width"], row["height"]) for row in rows} == {(16, 12)}
    assert set(rows[0]) == {
        "input", "output", "status", "width", "height", "seconds", "device",
        "precision", "tiles", "bytes", "comparison", "estimate", "error",
    }  # fmt: skip
    assert len(upscaler) == 1


def test_streams(run, upscaler):
    make("photo.png")
    data = Path("photo.png").read_bytes()
    before = files()
    for output in ((), ("-o", "-")):
        result = run("upscale", "-", *output, "--format", "jpg", input=data)
        assert result.exit_code == 0
        with Image.open(io.BytesIO(result.stdout_bytes)) as image:
            assert (image.format, image.size) == ("JPEG", (32, 24))
    assert files() == before
    result = run("upscale", "-", "-o", "o.png", input=data)
    assert (result.stdout, size_of("o.png")) == ("o.png\n", (32, 24))
    assert upscaler


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


def fails(result, code, message):
    """One line on stderr, nothing on stdout, and the exit code."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())
    assert not list(Path().rglob("*.part"))
    return True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-x 4 --width 20", "--scale contradicts --width and --height"),
        ("-x 9", "1 to 8"),
        ("-x 0", "1 to 8"),
        ("-x nan", "1 to 8"),
        ("--width 1000", "1 to 8"),
        ("--tile 8", "--tile must be at least 16 pixels, not 8"),
        ("--tile -1", "--tile must be auto or a number"),
        ("--tile-overlap some", "--tile-overlap must be auto, exact or a number"),
        ("--format gif", "unknown format 'gif'"),
        ("--format wepb", "did you mean webp"),
        ("--degradation dm", "unknown degradation 'dm'"),
        ("--overwrite --skip-existing", "contradict each other"),
        ("-o out.png --format jpg", "contradict each other"),
        ("-o out", "does not say its format"),
        ("-o - --json", "cannot share stdout"),
    ],
)
def test_usage_errors(options, message, run, upscaler):
    make("photo.png")
    before = files()
    assert fails(run("upscale", "photo.png", *options.split()), 2, message)
    assert files() == before
    assert not upscaler


@pytest.mark.parametrize("quality", ["0", "101", "good"])
def test_quality_is_between_1_and_100(quality, run, upscaler):
    make("photo.png")
    assert run("upscale", "photo.png", "--quality", quality).exit_code == 2
    assert not upscaler


def test_one_file_for_several_inputs(run, upscaler):
    make("a.png", "b.png")
    result = run("upscale", "a.png", "b.png", "-o", "out.png")
    assert fails(result, 2, "one file for several pictures")
    assert not upscaler


def test_input_errors(run, upscaler):
    Path("text.png").write_text("dear diary " * 9)
    Path("empty.png").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:-500])
    Path("nothing").mkdir()
    for name, message in [
        ("none.png", "none.png does not exist"),
        ("text.png", "text.png is not a picture"),
        ("empty.png", "empty.png is empty"),
        ("nothing", "folder nothing holds no pictures"),
        ("*.bmp", "no picture matches *.bmp"),
    ]:
        assert fails(run("upscale", name), 3, message)
    assert not upscaler  # no network is loaded for these
    assert fails(run("upscale", "cut.png"), 3, "cut.png is damaged or cut off")


def test_output_errors(run, upscaler):
    make("a.png", "x/a.png")
    Path("a_mrnet_x4.png").write_bytes(b"mine")
    before = files()
    for arguments, message in [
        (["a.png"], "a_mrnet_x4.png exists already: choose --overwrite"),
        (["a.png", "-o", "a.png", "--overwrite"], "a.png is itself an input"),
        (["a.png", "-o", "no/b.png"], "folder no does not exist"),
        (["a.png", "-o", "a_mrnet_x4.png/"], "cannot be written"),
        (["a.png", "x/a.png", "-o", "out/"], "would both become out/a_mrnet_x4.png"),
    ]:
        assert fails(run("upscale", *arguments), 4, message)
    assert files() == before
    make("half.png", mode="RGBA")
    assert fails(run("upscale", "half.png", "-o", "b.jpg"), 4, "no transparency")
    assert upscaler


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
    assert size_of("a_mrnet_x4.png") == (32, 24)


def test_partial_failure(run, upscaler):
    make("a.png")
    Path("text.png").write_text("dear diary " * 9)
    result = run("upscale", "text.png", "a.png", "none.png", "--json")
    assert result.exit_code == 7
    rows = json.loads(result.stdout)["results"]
    assert [row["status"] for row in rows] == ["failed", "done", "failed"]
    assert [row["output"] for row in rows] == [None, "a_mrnet_x4.png", None]
    assert rows[2]["error"] == "none.png does not exist"
    assert "text.png is not a picture" in result.stderr
    assert "2 of 3 inputs failed" in result.stderr
    assert size_of("a_mrnet_x4.png") == (32, 24)
    assert upscaler


def test_all_of_several_failing_keep_their_code(run, upscaler):
    result = run("upscale", "x.png", "y.png")
    assert fails(result, 3, "all 2 inputs failed")
    assert not upscaler


def test_missing_weights_are_found_before_anything_is_touched(run, upscaler):
    make("a.png")
    result = run("upscale", "a.png", "-m", "untrained", "-o", "out/")
    assert fails(result, 5, "no weights for untrained")
    assert not Path("out").exists()
    assert upscaler


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
    result = run("upscale", "a.png", "b.png")
    assert result.exit_code == 130
    assert size_of("a_mrnet_x4.png") == (32, 24)
    assert not Path("b_mrnet_x4.png").exists()
    assert not list(Path().rglob("*.part"))
    assert upscaler


def test_metadata_can_be_stripped(run, upscaler):
    Image.new("RGB", (8, 6)).save("a.png", dpi=(300, 300))
    run("upscale", "a.png", "-o", "kept.png")
    run("upscale", "a.png", "-o", "bare.png", "--strip-metadata")
    with Image.open("kept.png") as kept, Image.open("bare.png") as bare:
        assert round(kept.info["dpi"][0]) == 300
        assert "dpi" not in bare.info
    assert upscaler


def test_a_process_of_its_own(run_process):
    make("in/photo.jpg")
    result = run_process("upscale", "in/*.jpg", "-m", "bicubic", "-x", "1.5", "-o", ".")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"photo_bicubic_x1.5.jpg\n"
    assert size_of("photo_bicubic_x1.5.jpg") == (12, 9)


def test_help_is_light():
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from srcli.cli.app import app\n"
        "assert '--tile' in CliRunner().invoke(app, ['upscale', '--help']).output\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_enlarging_loads_nothing_that_it_does_not_use():
    import subprocess
    import sys

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
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert size_of("b.png") == (32, 24)


def test_a_frame_is_chosen(run, upscaler):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save("film.gif", save_all=True, append_images=frames[1:])
    message = "film.gif has 2 frames: choose one with --frame 1 to 2"
    assert fails(run("upscale", "film.gif"), 3, message)
    result = run("upscale", "film.gif", "--frame", "2", "-x", "2")
    assert (result.exit_code, result.stdout) == (0, "film_frame2_mrnet_x2.png\n")
    with Image.open("film_frame2_mrnet_x2.png") as image:
        assert image.convert("RGB").getpixel((5, 5)) == (0, 0, 255)
    assert fails(run("upscale", "film.gif", "--frame", "3"), 3, "there is no frame 3")
    # Files of one frame come along, under their usual names.
    make("photo.png")
    result = run("upscale", "photo.png", "film.gif", "--frame", "1", "-x", "2")
    assert result.stdout.split() == ["photo_mrnet_x2.png", "film_frame1_mrnet_x2.png"]
    # A later run does not take the results for pictures.
    result = run("upscale", ".", "--frame", "1", "-x", "2", "--overwrite")
    assert result.stdout.split() == ["film_frame1_mrnet_x2.png", "photo_mrnet_x2.png"]


def test_comparisons_lie_beside_the_results(run, upscaler):
    make("in/a.png", "in/b.jpg")
    result = run("upscale", "in", "-o", "out", "--compare", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["results"]
    pages = ["out/a_mrnet_x4.png.html", "out/b_mrnet_x4.jpg.html"]
    assert [row["comparison"] for row in rows] == pages
    for page, name in zip(pages, ("a.png", "b.jpg"), strict=True):
        text = Path(page).read_text("utf-8")
        assert name in text
        assert "8x6 to 32x24 pixels" in text
        assert "mrnet x3" in text  # how the stand-in says it enlarged
    before = files()
    Path("out/a_mrnet_x4.png").unlink()
    message = "out/a_mrnet_x4.png.html exists already"
    assert fails(run("upscale", "in/a.png", "-o", "out/", "--compare"), 4, message)
    assert run("upscale", "in", "-o", "out", "--compare", "--overwrite").exit_code == 0
    assert files().keys() == before.keys()
    assert fails(run("upscale", "in/a.png", "-o", "-", "--compare"), 2, "--compare")


def test_a_format_that_is_asked_for_gets_the_depth_that_it_has(run, upscaler):
    deep = np.full((6, 8), 0x8000, np.uint16)
    Image.fromarray(deep).save("deep.png")
    result = run("upscale", "deep.png", "-o", "flat.jpg")
    assert result.exit_code == 0
    assert "JPEG holds 8 bits a channel at most: reduced" in result.stderr
    with Image.open("flat.jpg") as image:
        assert image.getpixel((9, 9)) == 128
    result = run("upscale", "deep.png")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["a b.png", "a\nb.png", "caf\udce9.png", "-x.png"])
def test_names_of_every_kind(name, run_process):
    try:
        Image.new("RGB", (8, 6)).save(Path("made.png"))
        Path("made.png").rename(name)
    except OSError:
        pytest.skip("this file system refuses such a name")
    result = run_process("upscale", "--json", "-m", "bicubic", f"./{name}")
    assert (result.returncode, result.stderr) == (0, b"")
    (row,) = json.loads(result.stdout)["results"]
    assert row["status"] == "done"
    assert len(list(Path().glob("*bicubic_x4.png"))) == 1


@pytest.mark.parametrize("options", [(), ("-o", "new/folder"), ("--compare",)])
def test_a_result_whose_name_is_too_long_fails_alone(options, run):
    tag = "_bicubic_x4.png.html" if "--compare" in options else "_bicubic_x4.png"
    fitting = "n" * (255 - len(tag))
    make("in/z.png", f"in/{fitting}.png", f"in/{fitting}n.png")
    result = run("upscale", "in", "-m", "bicubic", *options)
    assert result.exit_code == 7
    assert result.stderr.count("its name is too long: choose a shorter one") == 1
    assert len(result.stdout.split()) == 2
    alone = run("upscale", f"in/{fitting}n.png", "-m", "bicubic", *options)
    assert fails(alone, 4, f"{fitting}n{tag}: its name is too long")
    alone = run("upscale", "in/z.png", "-m", "bicubic", "-o", "n" * 252 + ".png")
    assert fails(alone, 4, "too long")


@pytest.mark.parametrize("name", ["\u5199\u771f.png", "gr\xf6\xdfe.png"])
def test_output_whose_code_page_lacks_letters(name, run_process):
    """As where the output of a Windows console is sent on."""
    make("in/a.png")
    call = ("upscale", "in/a.png", "-m", "bicubic", "-o", name)
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    result = run_process(*call, env=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.strip() == name.encode("cp1252", "backslashreplace")
    result = run_process(*call, env=environment)
    assert result.returncode == 4
    assert name.encode("cp1252", "backslashreplace") in result.stderr


def test_links_pipes_and_folders_named_like_pictures(run, upscaler):
    make("real/a.png")
    Path("in/folder.png").mkdir(parents=True)
    Path("in/link.png").symlink_to(Path("real/a.png").absolute())
    Path("in/loop").symlink_to(Path("in").absolute())
    os.mkfifo("in/pipe.png")
    result = run("upscale", "in", "-r", "-o", "out")
    assert (result.exit_code, result.stdout) == (0, "out/link_mrnet_x4.png\n")
    assert fails(run("upscale", "in/pipe.png"), 3, "is no file but a device or pipe")
    Path("in/broken.png").symlink_to("nowhere.png")
    result = run("upscale", "in", "-o", "out", "--skip-existing")
    assert result.exit_code == 7
    assert "broken.png does not exist" in result.stderr


# Pictures larger than memory


@pytest.fixture
def scan(monkeypatch, picture):
    """A TIFF that is taken to be larger than memory; its pixels."""
    import tifffile

    from srcli.inference import jobs

    monkeypatch.setattr(jobs, "LARGE", 1000)
    tifffile.imwrite("scan.tif", picture(50, 70), tile=(16, 16), photometric="rgb")
    return picture(50, 70)


def test_a_picture_larger_than_memory_becomes_a_tiled_tiff(run, scan):
    import tifffile

    done = run("upscale", "scan.tif", "-m", "bicubic", "-x", 2.5, "--json")
    assert done.exit_code == 0, done.stderr
    (record,) = json.loads(done.stdout)["results"]
    assert (record["status"], record["width"]) == ("done", 175)
    path = Path("scan_bicubic_x2.5.tif")
    assert record["bytes"] == path.stat().st_size
    with tifffile.TiffFile(path) as tiff:
        assert (tiff.is_bigtiff, tiff.pages.first.is_tiled) == (True, True)
        np.testing.assert_array_equal(tiff.asarray(), imresize(scan, 2.5))
    preview = run("upscale", "scan.tif", "-m", "bicubic", "-o", "o/", "--dry-run")
    assert preview.exit_code == 0, preview.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compare"], "scan.tif is too large for a page"),
        (["-o", "-"], "scan.tif is too large for a stream"),
    ],
)
def test_what_needs_all_of_a_large_picture_is_refused(options, message, run, scan):
    done = run("upscale", "scan.tif", "-m", "bicubic", *options)
    assert done.exit_code == 4
    assert message in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["scan.tif"]


def test_a_large_picture_that_is_damaged_leaves_nothing(run, scan):
    data = Path("scan.tif").read_bytes()
    with Path("scan.tif").open("r+b") as file:
        file.truncate(len(data) - 900)
    done = run("upscale", "scan.tif", "-m", "bicubic", "-x", 2)
    assert done.exit_code == 3
    assert sorted(path.name for path in Path().iterdir()) == ["scan.tif"]


# Engines


def test_results_as_lines_of_json(run, picture):
    for name in ("a", "b"):
        Image.fromarray(picture()).save(f"{name}.png")
    Path("c.png").write_text("no picture")
    done = run("upscale", ".", "-m", "bicubic", "-x", 2, "--json-lines")
    assert done.exit_code == 7
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["status"] for record in records] == ["done", "done", "failed"]
    whole = run("upscale", ".", "-m", "bicubic", "-x", 2, "--json", "--overwrite")
    again = json.loads(whole.stdout)["results"]
    assert [r.keys() for r in records] == [r.keys() for r in again]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark"], "unknown engine 'spark'"),
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--ray-address", "auto"], "--ray-address is for --engine ray"),
        (["--json", "--json-lines"], "contradict each other"),
        (["--engine", "ray", "--device", "mps"], "takes --device auto, cpu or cuda"),
        (["--engine", "ray", "-o", "-"], "takes no standard input or output"),
    ],
)
def test_engines_that_make_no_sense(options, message, run, picture):
    Image.fromarray(picture()).save("a.png")
    done = run("upscale", "a.png", "-m", "bicubic", "-x", 2, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["a.png"]


def test_ray_that_is_not_installed_is_named(run, picture, monkeypatch):
    Image.fromarray(picture()).save("a.png")
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("upscale", "a.png", "--engine", "ray")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: --engine ray needs Ray Data: pip install 'srcli[ray]'\n"
    )
