"""Other people's networks: files that are read, and files that cannot be."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from spandrel_files import compact, esrgan, rcan, swinir

from srcli.errors import DeviceError, UsageError, WeightsError
from srcli.inference.runner import Runner
from srcli.models.fast import FastModel, make_fast
from srcli.pretrained.community import CommunityNetwork, import_spandrel
from srcli.pretrained.loading import load_model, read_file


def save(network, path, **wrapped):
    torch.save({**wrapped, "params_ema": network.state_dict()}, path)
    return path


@pytest.fixture
def lr():
    return torch.rand(3, 100, 110)


def test_every_kind_of_file_gives_the_network(tmp_path, lr):
    network = compact()
    states = network.state_dict()
    torch.save({"state_dict": states, "epoch": 3, "loss": 0.5}, tmp_path / "a.ckpt")
    torch.save({"params": states}, tmp_path / "b.pth")
    torch.save(states, tmp_path / "c.PTH", _use_new_zipfile_serialization=False)
    torch.save(states, tmp_path / "d.pt")
    save_file(states, tmp_path / "e.safetensors", {"modelspec.license": "CC0-1.0"})
    # No UTF-8, which the libraries' own readers want.
    for suffix, like in (("pth", "b.pth"), ("safetensors", "e.safetensors")):
        odd = os.fsdecode(b"\xff." + suffix.encode())
        shutil.copy(tmp_path / like, tmp_path / odd)
    with torch.no_grad():
        expected = network(lr[None]).clamp(0, 1)
        for path in tmp_path.iterdir():
            read = load_model(path, 4)
            assert isinstance(read, CommunityNetwork)
            assert torch.equal(read(lr[None], 4), expected), path


@pytest.mark.parametrize("make", [compact, esrgan])
def test_convolutional_networks_have_a_fast_copy(tmp_path, lr, make):
    network = make()
    read = load_model(save(network, tmp_path / "m.pth"), 4)
    fast = make_fast(read, 4)
    assert isinstance(fast.network, FastModel)
    assert read.network is not fast.network
    given = lr[None, :, :40, :30]
    with torch.no_grad():
        expected = network(given).clamp(0, 1)
        torch.testing.assert_close(fast(given), expected, atol=1e-4, rtol=0)
        assert torch.equal(read(given), expected)
        with torch.autocast("cpu", torch.bfloat16):
            rough, rougher = fast(given), read(given)
    off = (rough - expected).abs().mean(), (rougher - expected).abs().mean()
    assert off[0] < off[1]  # the picture is not rounded


def test_networks_that_no_rule_knows_run_as_they_are(tmp_path):
    read = load_model(save(swinir(), tmp_path / "m.pth"), 2)
    assert make_fast(read, 2) is read


@pytest.mark.parametrize(("make", "scale"), [(compact, 4), (swinir, 2)])
def test_tiles_are_equal_to_the_whole(tmp_path, lr, make, scale):
    # The windows of a transformer have to lie in a tile as they lie in the whole.
    network = read_file(save(make(scale), tmp_path / "m.pth"))
    whole = Runner(network, scale, tile=0, precision="fp32").enlarge(lr)
    runner = Runner(network, scale, tile=33, precision="fp32")
    tiled = runner.enlarge(lr)
    assert runner.stats.tiles > 4
    assert whole.std() > 0.1
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_tiles_of_half_size_after_a_shortage_are_equal_too(tmp_path, monkeypatch):
    lr = torch.rand(3, 100, 170)
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


def test_half_precision_only_where_the_network_bears_it(lr, monkeypatch):
    device = "srcli.inference.device._fastest_precision"  # of hardware that has it
    monkeypatch.setattr(device, lambda device: "bf16")
    for bears, precision in ((False, "fp32"), (True, "bf16")):
        network = CommunityNetwork(describe(compact(), supports_bfloat16=bears))
        assert Runner(network, 4, precision="auto").stats.precision == precision
        if bears:
            assert Runner(network, 4, precision="bf16").stats.precision == "bf16"
        else:
            with pytest.raises(UsageError, match="use --precision fp32"):
                Runner(network, 4, precision="bf16")


def test_the_picture_that_is_enlarged_stays_as_it_is(tmp_path, lr):
    # RCAN multiplies its input in place.
    network = read_file(save(rcan(), tmp_path / "m.pth"))
    before = lr.clone()
    runner = Runner(network, 2, precision="fp32")
    first = runner.enlarge(lr)
    assert torch.equal(lr, before)
    assert torch.equal(runner.enlarge(lr), first)


def test_noise_that_a_network_draws_is_always_the_same(lr):
    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, picture):
            return picture * self.weight + torch.randn(1, 3, 1, 1) / 9

    runner = Runner(CommunityNetwork(describe(Noisy(), scale=1)), 1, tile=64)
    state = torch.get_rng_state()
    first = runner.enlarge(lr)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, lr)
    assert torch.equal(runner.enlarge(lr), first)
    offset = first - lr  # the same in every tile
    inside = (first > 0) & (first < 1)
    for channel, mask in zip(offset, inside, strict=True):
        assert channel[mask].max() - channel[mask].min() < 1e-6


def test_networks_that_look_at_the_whole_go_as_a_whole_if_they_can(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("srcli.inference.device.free_memory", lambda device: 1e10)
    whole = read_file(save(rcan(), tmp_path / "a.pth"))
    part = read_file(save(compact(), tmp_path / "b.pth"))
    assert (whole.sees_whole, part.sees_whole) == (True, False)
    lr = torch.rand(3, 16, 700)
    runners = [Runner(n, n.config.scales[0], precision="fp32") for n in (whole, part)]
    for runner in runners:
        runner.enlarge(lr)
    assert [runner.stats.tiles for runner in runners] == [1, 2]


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
    network = CommunityNetwork(describe(Picky(), scale=1, size_requirements=needs))
    lr = torch.rand(3, 301, 203)
    for tile in ("auto", 0, 32, 100):
        assert torch.equal(Runner(network, 1, tile=tile).enlarge(lr), lr)


@pytest.mark.parametrize("scale", [1, 3, 8])
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


class Evil:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def script(path, more=b""):
    """An archive that PyTorch takes for a program."""
    writer = torch._C.PyTorchFileWriter(str(path))
    for name in ("constants.pkl", "data.pkl", "code/a.py"):
        writer.write_record(name, b"", 0)
    writer.write_end_of_file()
    path.write_bytes(path.read_bytes() + more)


def spoil(path):
    """Break the list of an archive's files, and nothing else."""
    save(compact(), path)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02")] ^= 255
    path.write_bytes(data)


def zip_pictures(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")


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
    "page.pth": (lambda p: p.write_bytes(b"\n <!DOCTYPE html><html>"), "is a web page"),
    "a.pth": (
        lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x00"),
        "is an ONNX model",
    ),
    "m.onnx": (lambda p: p.write_bytes(b"\x08\x07\x12"), "is an ONNX model"),
    "picture.pth": (
        lambda p: Image.new("RGB", (4, 4)).save(p, "PNG"), "is a picture",
    ),
    "noise.pth": (lambda p: p.write_bytes(bytes(range(1, 250))), "is damaged"),
    "cut.pth": (lambda p: (save(compact(), p), cut(p, 0.7)), "is damaged"),
    "cut.safetensors": (
        lambda p: (save_file(compact().state_dict(), p), cut(p, 0.7)),
        "is no readable safetensors file",
    ),
    "evil.pth": (lambda p: torch.save({"a": Evil()}, p), "could run programs"),
    "evil_old.ckpt": (
        lambda p: torch.save({"a": Evil()}, p, _use_new_zipfile_serialization=False),
        "could run programs",
    ),
    "evil_bare.pth": (
        lambda p: p.write_bytes(pickle.dumps(Evil())), "could run programs",
    ),
    "whole.pth": (lambda p: torch.save(compact(), p), "could run programs"),
    "script.pt": (script, "TorchScript"),
    # Python's reader takes this for no archive, PyTorch's for a program.
    "script.pth": (lambda p: script(p, b"PK\x05\x06"), "TorchScript"),
    "spoilt.pth": (spoil, "is damaged"),
    "pictures.pth": (zip_pictures, "is damaged or cut off, or no model"),
    "numbers.pth": (
        lambda p: torch.save({"params": {0: torch.ones(3)}}, p), "is damaged",
    ),
    "list.pth": (lambda p: torch.save([1, 2, 3], p), "holds no weights"),
    "others.pth": (
        lambda p: torch.save({"fc.weight": torch.ones(3, 4)}, p), "holds no network",
    ),
    "misfit.pth": (
        lambda p: torch.save(
            {**compact().state_dict(), "body.0.bias": torch.ones(3)}, p
        ),
        "fit no network",
    ),
    "nan.pth": (lambda p: lie(p, float("nan")), "some are no numbers"),
    "x16.pth": (lambda p: save(compact(16), p), "enlarges by 16"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_model_is_said_in_a_sentence(
    tmp_path, run, picture, name, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make, said = MALFORMED[name]
    Image.fromarray(picture(20, 24)).save(tmp_path / "a.png")
    path = tmp_path / name
    make(path)
    done = run("upscale", tmp_path / "a.png", "--weights", path)
    assert done.exit_code == 5, done.output
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert str(path) in done.stderr
    for jargon in ("Traceback", "pickle", "state_dict", "Error", "size mismatch"):
        assert jargon not in done.stderr.replace(str(path), "")
    # Nor has anything that a file wanted to have run left its mark.
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.png", name])


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


def test_lack_of_memory_is_no_damage(tmp_path, monkeypatch):
    path = save(compact(), tmp_path / "m.pth")

    def short(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(import_spandrel().MAIN_REGISTRY, "load", short)
    with pytest.raises(DeviceError, match="memory does not suffice"):
        read_file(path)


def test_a_network_of_others_is_no_start_for_ours(run, tmp_path, folder):
    weights = save(compact(), tmp_path / "m.pth")
    done = run(
        "train", "-m", "mrnet", "-x", "4", "--data", folder, "--val", "none",
        "--init", weights, "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "fits mrnet" in done.stderr


def test_whoever_reads_such_a_file_says_the_same(tmp_path, run):
    (tmp_path / "page.pth").write_bytes(b"<html lang='en'>")
    for command in (["models"], ["benchmark", "-d", tmp_path, "--weights"]):
        done = run(*command, tmp_path / "page.pth")
        assert done.exit_code == 5
        assert "is a web page" in done.stderr


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


def test_spandrel_needs_no_torchvision(tmp_path):
    # As with a CPU build of torch, which the usual torchvision does not fit.
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('no such operator')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from srcli.pretrained.community import import_spandrel\n"
        "import_spandrel().MAIN_REGISTRY['RCAN']"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_benchmark_shows_it_beside_ours(tmp_path, run, folder):
    weights = save(compact(2), tmp_path / "2xAny.pth")
    arguments = ("-d", folder, "--weights", weights, "--json")
    done = run("benchmark", *arguments)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["model"] for row in rows] == ["bicubic", "mrnet", "2xAny.pth"]
    assert {row["scale"] for row in rows} == {2}
    assert rows[2]["protocol"] == "rgb"
    assert rows[2]["parameters"] == sum(p.numel() for p in compact(2).parameters())
    assert rows[2]["paper"] is None
    done = run("benchmark", *arguments, "-m", "bicubic", "-x", "3")
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
