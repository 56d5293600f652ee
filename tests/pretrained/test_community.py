"""Other people's networks: files that are read, and files that cannot be."""

import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from spandrel_files import compact, random_weights, swinir

from srcli.errors import UsageError, WeightsError
from srcli.inference.runner import Runner
from srcli.pretrained.catalog import load_model, read_file
from srcli.pretrained.community import CommunityNetwork, import_spandrel


def save(network, path, **wrapped):
    torch.save({**wrapped, "params_ema": network.state_dict()}, path)
    return path


@pytest.fixture
def lr():
    return torch.rand(3, 150, 170)


@pytest.mark.parametrize("name", ["m.pth", "m.PTH", "m.pt", "m.ckpt"])
def test_every_kind_of_pickle_gives_the_network(tmp_path, lr, name):
    network = compact()
    torch.save(network.state_dict(), tmp_path / name)
    read = load_model(tmp_path / name, 4)
    assert isinstance(read, CommunityNetwork)
    with torch.no_grad():
        assert torch.equal(read(lr[None], 4), network(lr[None]).clamp(0, 1))


def test_weights_are_found_in_what_training_programs_leave(tmp_path, lr):
    network = compact()
    states = network.state_dict()
    torch.save({"state_dict": states, "epoch": 3, "loss": 0.5}, tmp_path / "a.ckpt")
    torch.save({"params": states}, tmp_path / "b.pth")
    torch.save(states, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    save_file(states, tmp_path / "d.safetensors", {"modelspec.license": "CC0-1.0"})
    for name in ("a.ckpt", "b.pth", "c.pth", "d.safetensors"):
        with torch.no_grad():
            sr = read_file(tmp_path / name)(lr[None])
            assert torch.equal(sr, network(lr[None]).clamp(0, 1)), name


@pytest.mark.parametrize(("make", "scale"), [(compact, 4), (swinir, 2)])
def test_tiles_are_equal_to_the_whole(tmp_path, lr, make, scale):
    # The windows of a transformer have to lie in a tile as they lie in the whole.
    network = read_file(save(make(scale), tmp_path / "m.pth"))
    whole = Runner(network, scale, tile=0, precision="fp32").enlarge(lr)
    runner = Runner(network, scale, tile=33, precision="fp32")
    tiled = runner.enlarge(lr)
    assert runner.stats.tiles > 20
    assert whole.std() > 0.1
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_tiles_of_half_size_after_a_shortage_are_equal_too(tmp_path, lr, monkeypatch):
    network = read_file(save(swinir(), tmp_path / "m.pth"))
    whole = Runner(network, 2, tile=0, precision="fp32").enlarge(lr)
    runner = Runner(network, 2, tile=96, precision="fp32")
    forward = runner._model.forward

    def short_of_memory(picture, scale):
        if picture.shape[-1] > 110:
            raise torch.OutOfMemoryError("out of memory")
        return forward(picture, scale)

    monkeypatch.setattr(runner._model, "forward", short_of_memory)
    torch.testing.assert_close(runner.enlarge(lr), whole, rtol=0, atol=1e-5)
    assert runner.stats.fallbacks > 0


def describe(network, **fields):
    """What spandrel says of a network, with other words in place."""
    spandrel = import_spandrel()
    usual = {
        "architecture": spandrel.MAIN_REGISTRY["Compact"].architecture,
        "purpose": "SR", "tags": [], "supports_half": False,
        "supports_bfloat16": False, "scale": 4, "input_channels": 3,
        "output_channels": 3,
    }  # fmt: skip
    return spandrel.ImageModelDescriptor(
        network, network.state_dict(), **{**usual, **fields}
    )


def test_half_precision_only_where_the_network_bears_it(lr):
    network = CommunityNetwork(describe(compact()), 4)
    runner = Runner(network, 4, precision="auto")
    runner.enlarge(lr[:, :20, :20])
    assert runner.stats.precision == "fp32"
    with pytest.raises(UsageError, match="use --precision fp32"):
        Runner(network, 4, precision="bf16")
    both = CommunityNetwork(describe(compact(), supports_bfloat16=True), 4)
    assert Runner(both, 4, precision="bf16").stats.precision == "bf16"


def test_sides_that_a_network_does_not_take_are_filled_up():
    class Picky(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, picture):
            assert picture.shape[-1] % 48 == picture.shape[-2] % 48 == 0
            assert min(picture.shape[-2:]) >= 96
            return picture * self.weight

    spandrel = import_spandrel()
    needs = spandrel.SizeRequirements(minimum=96, multiple_of=48)
    network = CommunityNetwork(describe(Picky(), scale=1, size_requirements=needs), 1)
    lr = torch.rand(3, 301, 203)
    for tile in ("auto", 0, 32, 100):
        assert torch.equal(Runner(network, 1, tile=tile).enlarge(lr), lr)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_every_scale_enlarges_in_one_command(tmp_path, run, picture, scale):
    Image.fromarray(picture(20, 24)).save(tmp_path / "a.png")
    weights = save(compact(scale), tmp_path / f"{scale}xAny.pth")
    done = run("upscale", tmp_path / "a.png", "--weights", weights)
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / f"a_{scale}xAny_x{scale}.png") as made:
        assert made.size == (24 * scale, 20 * scale)


def test_factors_that_are_not_the_networks_own_are_met(tmp_path, run, picture):
    Image.fromarray(picture(20, 24)).save(tmp_path / "a.png")
    weights = save(compact(2), tmp_path / "b.pth")
    done = run("upscale", tmp_path / "a.png", "-m", weights, "-x", "3")
    assert "b x2, then b x2, then bicubic to 72x60" in done.stderr
    one = save(compact(1), tmp_path / "one.pth")
    done = run("upscale", tmp_path / "a.png", "-m", one, "-x", "2")
    assert done.exit_code == 2
    assert "no network that enlarges by 2" in done.stderr


def test_grey_network_gets_luma_and_colours_stay(tmp_path, run, picture):
    pixels = picture(20, 24)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    network = compact(2, channels=1, layers=0)
    with torch.no_grad():  # bilinear, nearly: each pixel four times
        for part in network.parameters():
            part.zero_()
    weights = save(network, tmp_path / "grey.pth")
    assert run("upscale", tmp_path / "a.png", "-m", weights).exit_code == 0
    with Image.open(tmp_path / "a_grey_x2.png") as image:
        made = np.asarray(image, np.float64)
    # A network of zeros hands on its nearest neighbours.
    nearest = pixels.repeat(2, 0).repeat(2, 1).astype(np.float64)
    luma = [0.299, 0.587, 0.114]
    inside = (made > 0).all(2) & (made < 255).all(2)  # what no clipping has moved
    assert inside.mean() > 0.5
    assert np.abs((made - nearest) @ luma)[inside].max() < 2


def test_depth_transparency_and_profile_pass_through(tmp_path, run):
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (20, 24, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(300, 300))
    weights = save(compact(2), tmp_path / "m.pth")
    assert run("upscale", tmp_path / "a.png", "-m", weights).exit_code == 0
    with Image.open(tmp_path / "a_m_x2.png") as made:
        assert made.mode == "RGBA"
        assert made.info["dpi"] == pytest.approx((300, 300), abs=0.01)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/srcli-was-here",)


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)


def cut(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def lie(path, value):
    states = compact().state_dict()
    states["body.0.weight"][0, 0] = value
    torch.save(states, path)


MALFORMED = {
    "empty.pth": (lambda p: p.write_bytes(b""), "is empty"),
    "lfs.pth": (
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x\n"),
        "Git LFS pointer",
    ),
    "lfs.safetensors": (
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x\n"),
        "Git LFS pointer",
    ),
    "page.pth": (lambda p: p.write_bytes(b"\n <!DOCTYPE html><html>"), "is a web page"),
    "page.pt": (lambda p: p.write_bytes(b"<html lang='en'>"), "is a web page"),
    "page.safetensors": (lambda p: p.write_bytes(b"<!doctype html>"), "is a web page"),
    "a.pth": (
        lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x00"),
        "is an ONNX model",
    ),
    "picture.pth": (
        lambda p: Image.new("RGB", (4, 4)).save(p, "PNG"), "is a picture",
    ),
    "noise.pth": (lambda p: p.write_bytes(bytes(range(1, 250))), "is damaged"),
    "text.ckpt": (lambda p: p.write_text("weights: 3\n"), "is damaged"),
    "cut.pth": (lambda p: (save(compact(), p), cut(p, 0.7)), "is damaged"),
    "cut_old.pth": (
        lambda p: (
            torch.save(compact().state_dict(), p, _use_new_zipfile_serialization=False),
            cut(p, 0.7),
        ),
        "is damaged",
    ),
    "cut.safetensors": (
        lambda p: (save_file(compact().state_dict(), p), cut(p, 0.7)),
        "is no readable safetensors file",
    ),
    "evil.pth": (lambda p: torch.save({"a": Evil()}, p), "could run programs"),
    "evil.pt": (lambda p: torch.save({"a": Evil()}, p), "could run programs"),
    "evil_old.ckpt": (
        lambda p: torch.save({"a": Evil()}, p, _use_new_zipfile_serialization=False),
        "could run programs",
    ),
    "evil_bare.pth": (
        lambda p: p.write_bytes(pickle.dumps(Evil())), "could run programs",
    ),
    "whole.pth": (lambda p: torch.save(compact(), p), "could run programs"),
    "script.pt": (
        lambda p: zipped(p, m__constants_pkl=b"", m__data_pkl=b"", m__code__a_py=b""),
        "TorchScript",
    ),
    "pictures.pth": (lambda p: zipped(p, a_png=b"x", b_png=b"y"), "is an archive"),
    "list.pth": (lambda p: torch.save([1, 2, 3], p), "holds no weights"),
    "words.pth": (lambda p: torch.save({"epoch": 3}, p), "holds no weights"),
    "others.pth": (
        lambda p: torch.save({"fc.weight": torch.ones(3, 4)}, p), "holds no network",
    ),
    "others.safetensors": (
        lambda p: save_file({"fc.weight": torch.ones(3, 4)}, p), "holds no network",
    ),
    "misfit.pth": (
        lambda p: torch.save(
            {**compact().state_dict(), "body.0.bias": torch.ones(3)}, p
        ),
        "fit no network",
    ),
    "nan.pth": (lambda p: lie(p, float("nan")), "some are no numbers"),
    "inf.pth": (lambda p: lie(p, float("inf")), "some are no numbers"),
    "x16.pth": (lambda p: save(compact(16), p), "enlarges by 16"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_model_is_said_in_a_sentence(tmp_path, run, picture, name):
    make, said = MALFORMED[name]
    Image.fromarray(picture(20, 24)).save(tmp_path / "a.png")
    path = tmp_path / name
    make(path)
    done = run("upscale", tmp_path / "a.png", "--weights", path)
    assert done.exit_code == 5, done.output
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert str(path) in done.stderr
    assert not os.path.exists("/tmp/srcli-was-here")  # noqa: PTH110
    for jargon in ("Traceback", "pickle", "state_dict", "Error", "size mismatch"):
        assert jargon not in done.stderr.replace(str(path), "")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.png", name])
    # Whoever reads such a file says the same.
    for command in (
        ["models", path],
        ["benchmark", "-d", tmp_path, "--weights", path],
    ):
        other = run(*command)
        assert other.exit_code == 5, command
        assert said in other.stderr


@pytest.mark.parametrize(
    ("purpose", "said"), [("FaceSR", "restores faces"), ("Inpainting", "fills holes")]
)
def test_networks_that_do_not_enlarge_are_refused(tmp_path, monkeypatch, purpose, said):
    spandrel = import_spandrel()
    network = compact()
    if purpose == "FaceSR":
        found = describe(network, purpose=purpose)
    else:
        found = spandrel.MaskedImageModelDescriptor(
            network, network.state_dict(), spandrel.MAIN_REGISTRY["LaMa"].architecture,
            purpose, [], True, True, 3, 3,
        )  # fmt: skip
    monkeypatch.setattr(spandrel.MAIN_REGISTRY, "load", lambda weights: found)
    with pytest.raises(WeightsError, match=said):
        read_file(save(network, tmp_path / "m.pth"))


def test_without_the_extra_one_sentence_names_it(tmp_path, run, picture, monkeypatch):
    Image.fromarray(picture(20, 24)).save(tmp_path / "a.png")
    weights = save(compact(), tmp_path / "m.pth")
    find = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "spandrel" else find(name, *rest),
    )
    done = run("upscale", tmp_path / "a.png", "--weights", weights)
    assert done.exit_code == 2
    assert "pip install 'srcli[spandrel]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_spandrel_needs_no_torchvision(run_process, tmp_path):
    # As with a CPU build of torch, which the usual torchvision does not fit.
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('no such operator')")
    weights = save(compact(), tmp_path / "m.pth")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run_process("models", weights, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert b'"network": "RealESRGAN Compact"' in done.stdout


def test_benchmark_shows_it_beside_ours(tmp_path, run, folder):
    weights = save(compact(2), tmp_path / "2xAny.pth")
    arguments = ("-d", folder, "--weights", weights, "--json")
    done = run("benchmark", *arguments, "-m", "bicubic")
    assert done.exit_code == 0, done.stderr
    import json

    rows = json.loads(done.stdout)["rows"]
    assert [row["model"] for row in rows] == ["bicubic", "2xAny.pth"]
    assert rows[1]["protocol"] == "rgb"
    assert rows[1]["parameters"] == sum(p.numel() for p in compact(2).parameters())
    assert rows[1]["paper"] is None
    done = run("benchmark", *arguments, "-x", "3")
    assert done.exit_code == 2
    assert "serves x2, not x3" in done.stderr


def test_multiplications_are_those_of_the_layers(tmp_path):
    network = read_file(save(compact(4, layers=3), tmp_path / "m.pth"))
    kernels = 9 * (3 * 8 + 3 * 8 * 8 + 8 * 48)
    assert network.count_macs() == kernels * (1280 // 4) * (720 // 4)


def test_models_says_what_a_file_holds(tmp_path, run):
    weights = save(compact(4), tmp_path / "[red]4x.pth")
    told = run("models", weights)
    assert told.exit_code == 0, told.stderr
    assert "RealESRGAN Compact" in told.stdout
    assert "[red]4x.pth" in told.stdout
    assert run("models", weights, "--all").exit_code == 2
    assert run("models", tmp_path / "none.pth").exit_code == 5


def test_random_weights_reach_the_output():
    network = compact()
    lr = torch.rand(1, 3, 8, 8)
    before = network(lr)
    random_weights(network)  # the same again
    assert torch.equal(network(lr), before)
