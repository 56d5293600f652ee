"""`srcli download`: names, results, lists and exit codes."""

from __future__ import annotations

import io
import json
import socket
import threading
import zipfile
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from srcli.pretrained import catalog, install, transfer
from srcli.pretrained.datasets import PublicSet

WEIGHTS = b"weights" * 50


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the address where its files can be downloaded."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def dead():
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def offer(tmp_path, monkeypatch, make_entry):
    """Makes the catalogue: data sets and weight files, name to address."""
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(catalog, "bundled_folder", lambda: tmp_path / "bundled")
    monkeypatch.setattr(transfer, "sleep", lambda _: None)

    def make(sets=(), weights=()):
        listed = tuple(
            PublicSet(
                name=name,
                url=f"{url}/{name}.zip" if url else "",
                ask="" if url else "http://owners.example",
                contents=(name.title(),),
                folders=(name.title(),),
                terms="anything",
            )
            for name, url in sets
        )
        entries = tuple(
            make_entry(
                f"{model}.safetensors",
                WEIGHTS,
                model,
                url=f"{url}/{model}.safetensors",
            )
            for model, url in weights
        )
        monkeypatch.setattr(install, "public_sets", lambda: listed)
        monkeypatch.setattr(catalog, "manifest", lambda: entries)

    return make


def put_zip(folder, name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{name.title()}/HR/a.png", name.encode())
    (folder / f"{name}.zip").write_bytes(stream.getvalue())


def one_line(text):
    """Rich wraps long lines; what matters is what they say."""
    return " ".join(text.split())


def test_data_sets_and_weights_arrive(run, offer, served, data_dir, tmp_path):
    folder, url = served
    put_zip(folder, "birds")
    (folder / "mrnet.safetensors").write_bytes(WEIGHTS)
    offer(sets=[("birds", url)], weights=[("mrnet", url)])
    result = run("download", "birds", "mrnet", "--data-dir", data_dir)
    assert result.exit_code == 0
    assert result.stdout.startswith("birds: downloaded\n")
    assert "mrnet: downloaded\n" in result.stdout
    assert (data_dir / "Birds" / "HR" / "a.png").read_bytes() == b"birds"
    assert (tmp_path / "cache" / "weights" / "mrnet.safetensors").is_file()
    assert not (data_dir / "birds.zip").exists()
    again = run("download", "birds", "mrnet", "--data-dir", data_dir)
    assert again.exit_code == 0
    assert again.stdout.count("installed") == 2


def test_an_archive_can_be_kept(run, offer, served, data_dir):
    folder, url = served
    put_zip(folder, "birds")
    offer(sets=[("birds", url)])
    run("download", "birds", "--keep-archive", "--data-dir", data_dir)
    assert (data_dir / "birds.zip").is_file()


def test_bundled_weights_are_said_to_be_there(run, offer, dead, tmp_path):
    offer(weights=[("mrnet", dead)])
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "mrnet.safetensors").write_bytes(WEIGHTS)
    result = run("download", "mrnet", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "results": [
            {
                "name": "mrnet",
                "kind": "weights",
                "status": "bundled",
                "paths": [str(tmp_path / "bundled" / "mrnet.safetensors")],
                "error": None,
            }
        ]
    }


@pytest.mark.parametrize(
    ("name", "code"), [("birds", 3), ("mrnet", 5), ("manga109", 3)]
)
def test_what_cannot_be_had_has_its_exit_code(run, offer, dead, data_dir, name, code):
    offer(sets=[("birds", dead), ("manga109", None)], weights=[("mrnet", dead)])
    result = run("download", name, "--json", "--data-dir", data_dir)
    assert result.exit_code == code
    (row,) = json.loads(result.stdout)["results"]
    assert row["status"] == "failed"
    assert "".join(row["error"].split()) in "".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_an_unreachable_server_is_named(run, offer, dead, data_dir):
    offer(sets=[("birds", dead)])
    result = run("download", "birds", "--data-dir", data_dir)
    assert result.stdout == ""
    said = one_line(result.stderr)
    assert "cannot be reached" in said
    assert f"{dead}/birds.zip" in said
    assert list(data_dir.iterdir()) == []


def test_one_failure_among_many(run, offer, served, dead, data_dir):
    folder, url = served
    put_zip(folder, "birds")
    offer(sets=[("birds", url), ("cats", dead), ("manga109", None)])
    result = run("download", "--all", "--data-dir", data_dir)
    assert result.exit_code == 7
    assert result.stdout.startswith("birds: downloaded")
    said = one_line(result.stderr)
    assert "manga109 is left out: ask for it at http://owners.example" in said
    assert "1 of 2 downloads failed" in said


def test_when_all_fail_for_one_reason_that_is_the_exit_code(run, offer, dead, data_dir):
    offer(sets=[("birds", dead), ("cats", dead)])
    result = run("download", "--all", "--data-dir", data_dir)
    assert result.exit_code == 3
    assert "2 of 2 downloads failed" in one_line(result.stderr)


def test_a_folder_that_cannot_be_written(run, offer, served, data_dir):
    folder, url = served
    put_zip(folder, "birds")
    offer(sets=[("birds", url)])
    data_dir.write_bytes(b"a file, not a folder")
    assert run("download", "birds", "--data-dir", data_dir).exit_code == 4


def test_nothing_is_downloaded_if_one_name_is_wrong(run, offer, served, data_dir):
    folder, url = served
    put_zip(folder, "birds")
    offer(sets=[("birds", url)])
    result = run("download", "birds", "bird", "--data-dir", data_dir)
    assert result.exit_code == 2
    assert "did you mean birds?" in one_line(result.stderr)
    assert not data_dir.exists()


@pytest.mark.parametrize("arguments", [(), ("set5", "--all")])
def test_names_or_all_but_not_both(run, arguments):
    result = run("download", *arguments)
    assert result.exit_code == 2
    assert "srcli download --list" in one_line(result.stderr)


def test_the_real_list(run, data_dir, monkeypatch):
    (data_dir / "Set5").mkdir(parents=True)
    (data_dir / "Set5" / "a.png").write_bytes(b"x")
    monkeypatch.setenv("SRCLI_DATA_DIR", str(data_dir))
    result = run("download", "--list", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["data_dir"] == str(data_dir)
    rows = {row["name"]: row for row in document["items"]}
    assert rows["set5"]["installed"]
    assert rows["set5"]["paths"] == [str(data_dir / "Set5")]
    assert rows["set5"]["part_of"] == "benchmark"
    assert not rows["benchmark"]["installed"]
    assert rows["div2k-train"]["bytes"] == 3_530_603_713
    assert rows["manga109"]["ask"] == "http://www.manga109.org"
    assert rows["manga109"]["urls"] == []


def test_the_list_for_people(run, offer, dead, data_dir):
    offer(sets=[("birds", dead), ("manga109", None)], weights=[("mrnet", dead)])
    result = run("download", "--list", "--data-dir", data_dir)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["birds", "data", "?", "anything"] in lines
    assert ["manga109", "data", "?", "on", "request", "anything"] in lines
    assert ["mrnet", "weights", "350", "B", "CC0"] in lines
    only = run("download", "--list", "birds", "--data-dir", data_dir)
    assert "manga109" not in only.stdout
