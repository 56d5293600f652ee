"""Bundling: an export beside the code, its manifest entry, and what is refused."""

import dataclasses
import json
import shutil

import pytest
import torch

from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained import catalog
from srcli.pretrained.bundle import main
from srcli.pretrained.catalog import load_model, manifest, save_weights
from srcli.pretrained.purpose import name_file

REAL_MANIFEST = catalog.manifest_path()
REAL = json.loads(REAL_MANIFEST.read_text())["weights"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installation of its own, with the manifest of this one."""
    folder = tmp_path / "package"
    folder.mkdir()
    shutil.copy(REAL_MANIFEST, folder)
    monkeypatch.setattr(catalog, "bundled_folder", lambda: folder)
    monkeypatch.setattr(catalog, "manifest_path", lambda: folder / REAL_MANIFEST.name)
    manifest.cache_clear()
    yield folder
    manifest.cache_clear()


@pytest.fixture
def make_export(tmp_path, make_entry):
    """A function that writes a run's export: `psnr` by set, alike at all scales."""

    def make(scales=(2,), *, seed=1, **fields):
        torch.manual_seed(seed)
        config = MRNetConfig(scales=scales, width=4, blocks=1, recursions=(1, 1, 1))
        folder = tmp_path / f"run-{seed}" / "export"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name_file("mrnet-s", scales, "bi")
        save_weights(MRNet(config), path)
        psnr = fields.pop("psnr", {"set5": 30.0})
        psnr = {name: dict.fromkeys(map(str, scales), dB) for name, dB in psnr.items()}
        said = catalog.describe_file(path) | {"psnr": psnr, "model": "mrnet-s"}
        entry = make_entry(**{"file": path.name} | said | fields)
        path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(entry)))
        return path

    return make


@pytest.fixture
def bundle(capsys, package):
    """A function that runs the command: its exit code and what it said.

    What was refused has changed nothing.
    """

    def run(place):
        before = {path: path.read_bytes() for path in package.iterdir()}
        try:
            main([str(place)])
        except SystemExit as end:
            assert {path: path.read_bytes() for path in package.iterdir()} == before
            said = capsys.readouterr()
            assert (said.out, said.err[:7], said.err.count("\n")) == ("", "error: ", 1)
            return int(end.code), said.err
        return 0, capsys.readouterr().out

    return run


def test_a_bundled_export_is_what_the_catalogue_loads(package, make_export, bundle):
    lr = torch.rand(1, 3, 8, 8)
    for scale in (3, 2):
        path = make_export((scale,), seed=scale)
        said = f"mrnet-s_x{scale}.safetensors: 30.000 dB on set5, before nothing\n"
        assert bundle(path.parent.parent) == (0, said)
        assert (package / path.name).read_bytes() == path.read_bytes()
        with torch.no_grad():
            assert torch.equal(load_model("mrnet-s", scale)(lr), load_model(path)(lr))
    listed = json.loads((package / REAL_MANIFEST.name).read_text())["weights"]
    names = [each["file"] for each in listed]
    assert names == sorted(names)
    assert [each for each in listed if each["model"] != "mrnet-s"] == REAL
    assert {tuple(each) for each in listed} == {tuple(each) for each in REAL}


def test_the_mean_of_all_that_both_were_measured_on_decides(
    package, make_export, bundle
):
    """Named are in turn the run, the folder of its export, and the export's files."""
    path = make_export(psnr={"set5": 30.0, "set14": 28.0, "b100": 20.0})
    bundle(path.parent.parent)
    better = "30.500 dB on set5, set14, before 29.000 dB; b100 not measured"
    for place, figures, code, said in (
        (
            path.parent,
            {"set5": 31.0, "set14": 27.0},
            2,
            "it has 29.000 dB on set5, set",
        ),
        (path.parent, {"set5": 31.0, "set14": 26.9}, 2, "the new weights 28.950 dB"),
        (path, {"urban100": 99.0}, 2, "no new figures on set5, set14, b100"),
        (path.with_suffix(".json"), {"set14": 32.0, "set5": 29.0}, 0, better),
    ):
        make_export(psnr=figures)
        ended, line = bundle(place)
        assert ended == code
        assert said in line


@pytest.mark.parametrize(
    ("there", "new", "said"),
    [
        (
            (2,),
            (2, 3),
            "mrnet-s_x2.safetensors stays: it serves x2, the new weights x2",
        ),
        ((2, 3, 4), (2, 3), "mrnet-s.safetensors stays: it serves x2 x3 x4, the new"),
    ],
)
def test_no_scale_is_lost_or_served_twice(make_export, bundle, there, new, said):
    assert bundle(make_export(there))[0] == 0
    code, line = bundle(make_export(new, psnr={"set5": 99.0}, seed=2))
    assert code == 2
    assert said in line


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"sha256": "5"}, 5, "is not what its entry says"),
        ({"parameters": 5}, 5, "is not what its entry says"),
        ({"config": {}}, 5, "is not what its entry says"),
        ({"file": "b.safetensors"}, 5, "no weight file at"),
        ({"file": "../b.safetensors"}, 3, "is no manifest entry"),
        ({"psnr": {}}, 2, "has no figures"),
        ({"data_licence": "not stated"}, 2, "does not say on whose pictures"),
        ({"teachers": ({"licence": "not stated"},)}, 2, "does not say on whose pict"),
    ],
)
def test_entries_of_other_weights_or_that_say_too_little_are_refused(
    make_export, bundle, fields, code, reason
):
    ended, line = bundle(make_export(**fields))
    assert ended == code
    assert reason in line


def test_what_is_no_whole_export_is_refused(make_export, bundle, tmp_path):
    path = make_export()
    path.write_bytes(path.read_bytes()[:-50])
    assert bundle(path)[0] == 5
    for text in ("{", "[]", "{}", '{"scales": [2], "more": 1}'):
        path.with_suffix(".json").write_text(text)
        ended, line = bundle(path)
        assert ended == 3
        assert "is no manifest entry" in line
    assert "no exports in" in bundle(tmp_path / "nowhere")[1]
    assert "2 exports in" in bundle(make_export((3,)).parent)[1]


def test_the_command_has_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert not end.value.code
    assert "RUN_OR_EXPORT" in capsys.readouterr().out
