"""Bundling: an export beside the code, its manifest entry, and what is refused."""

import dataclasses
import json
import shutil

import pytest

from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained import catalog
from srcli.pretrained.bundle import main
from srcli.pretrained.catalog import manifest, name_file
from srcli.pretrained.loading import load_model
from srcli.pretrained.weight_file import describe_file, save_weights

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

    def make(scales=(2,), *, psnr=(("set5", 30.0),), **fields):
        config = MRNetConfig(scales=scales, width=4, blocks=1, recursions=(1, 1, 1))
        path = tmp_path / "run" / "export" / name_file("mrnet-s", scales, "bi")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(MRNet(config), path)
        figures = {
            name: {str(x): dB for x in scales} for name, dB in dict(psnr).items()
        }
        said = {"file": path.name, "model": "mrnet-s", "psnr": figures}
        entry = make_entry(**said | describe_file(path) | fields)
        path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(entry)))
        return path

    return make


@pytest.fixture
def bundle(capsys, package):
    """A function that runs the command and checks its line; refusals change nothing."""

    def run(place, code, said):
        before, ended = {path: path.read_bytes() for path in package.iterdir()}, 0
        try:
            main([str(place)])
        except SystemExit as end:
            ended = end.code
        out, err = capsys.readouterr()
        assert (ended, (out + err).count("\n")) == (code, 1)
        assert said in (err if code else out)
        if code:
            assert {path: path.read_bytes() for path in package.iterdir()} == before

    return run


def test_a_bundled_export_is_what_the_catalogue_loads(package, make_export, bundle):
    for scale in (3, 2):
        path = make_export((scale,))
        bundle(path, 0, f"mrnet-s_x{scale}.safetensors: 30.000 dB on set5, before noth")
        assert (package / path.name).read_bytes() == path.read_bytes()
        assert load_model("mrnet-s", scale).config.scales == (scale,)
    listed = json.loads((package / REAL_MANIFEST.name).read_text())["weights"]
    assert listed == sorted(listed, key=lambda each: each["file"])
    assert [each for each in listed if each["model"] != "mrnet-s"] == REAL


def test_the_mean_of_all_that_both_were_measured_on_decides(make_export, bundle):
    """The run is named, the folder of its export, and either file of the export."""
    path = make_export(psnr={"set5": 30.0, "set14": 28.0, "b100": 20.0})
    bundle(path.parent.parent, 0, "26.000 dB on set5, set14, b100")
    make_export(psnr={"set5": 31.0, "set14": 27.0})
    bundle(path.parent, 2, "stays: it has 29.000 dB on set5, set14, the new weights 29")
    make_export(psnr={"urban100": 99.0})
    bundle(path, 2, "stays: no new figures on set5, set14, b100")
    make_export(psnr={"urban100": 9.0, "set14": 32.0, "set5": 29.0})
    better = "30.500 dB on set5, set14, before 29.000 dB; b100 not measured"
    bundle(path.with_suffix(".json"), 0, better)


def test_no_scale_is_lost_or_served_twice(make_export, bundle):
    bundle(make_export((2,)), 0, "30.000 dB")
    twice = "mrnet-s_x2.safetensors stays: it serves x2, the new weights x2 x3"
    bundle(make_export((2, 3), psnr={"set5": 99.0}), 2, twice)
    bundle(make_export((3, 4)), 0, "30.000 dB")
    lost = "mrnet-s.safetensors stays: it serves x3 x4, the new weights x3"
    bundle(make_export((3,), psnr={"set5": 99.0}), 2, lost)


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"sha256": "5"}, 5, "is not what its entry says"),
        ({"parameters": 5}, 5, "is not what its entry says"),
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
    bundle(make_export(**fields), code, reason)


def test_what_is_no_whole_export_is_refused(make_export, bundle, tmp_path):
    path = make_export()
    path.write_bytes(path.read_bytes()[:-50])
    bundle(path, 5, "damaged or cut off")
    for text in ("{", "[]", "{}", '{"scales": [2], "more": 1}'):
        path.with_suffix(".json").write_text(text)
        bundle(path, 3, "is no manifest entry")
    bundle(tmp_path / "nowhere", 3, "no exports in")
    bundle(make_export((3,)).parent, 3, "2 exports in")
