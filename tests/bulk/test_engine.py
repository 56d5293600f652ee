"""Bulk runs on a Ray cluster of several nodes, all of them processes here.

What is killed is killed while the run goes on: nothing may be lost by it, nothing
written twice, and no half file left.
"""

import json
import logging
import os
import re
import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

import numpy as np  # noqa: E402
import s3fs  # noqa: E402
import tifffile  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402
from ray.cluster_utils import Cluster as Nodes  # noqa: E402

from srcli.bulk import engine  # noqa: E402
from srcli.bulk.engine import do_large, enlarge_sources  # noqa: E402
from srcli.bulk.steps import Work  # noqa: E402
from srcli.imaging.resize import imresize  # noqa: E402
from srcli.inference import jobs, tiling  # noqa: E402
from srcli.inference.batch import run_batch  # noqa: E402
from srcli.inference.jobs import plan_jobs  # noqa: E402
from srcli.inference.naming import Naming  # noqa: E402
from srcli.inference.sizes import Goal  # noqa: E402
from srcli.inference.sources import expand_inputs  # noqa: E402
from srcli.inference.upscaler import Upscaler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def store():
    """An object store with the protocol of S3; the client of its one bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        files = s3fs.S3FileSystem()
        files.mkdir("bucket")
        yield files
    server.stop()


@pytest.fixture(scope="module")
def nodes(store):
    """A cluster whose first node only leads; each of two others has a core.

    Its processes begin with the environment that leads to the store.
    """
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers give way to all others: on a busy machine they would starve.
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Nodes(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False},
        )
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def weights(tmp_path, save_rrrn):
    """A small network: pictures take long enough to be interrupted, and no longer."""
    path = tmp_path / "small.safetensors"
    save_rrrn(path, 3)
    return path


@pytest.fixture
def bulk(many, weights, tmp_path, monkeypatch):
    """A function that runs the engine over many pictures; keywords go to `Naming`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "_BLOCK_PICTURES", 4)

    def start(**options):
        naming = Naming(model="small", goal=Goal(3), output="bulk/", **options)
        sources = expand_inputs(["many"], recursive=True)
        fields = {"model": "rrrn", "scale": 3, "weights": weights, "device": "cpu"}
        return enlarge_sources(sources, naming, fields)

    return start


@pytest.fixture
def local(many, weights, tmp_path, monkeypatch):
    """What the local engine makes of the same pictures: files, and their status."""
    monkeypatch.chdir(tmp_path)
    naming = Naming(model="small", goal=Goal(3), output="local/")
    planned = plan_jobs(expand_inputs(["many"], recursive=True), naming)
    upscaler = Upscaler("rrrn", 3, weights=weights, device="cpu")
    return summarise(run_batch(planned, upscaler)), as_files(tmp_path / "local")


def check_same(results, folder, local):
    """Both engines said and wrote the same; what differs is named."""
    said, files = local
    assert sorted(set(summarise(results)) ^ set(said)) == []
    assert len(results) == len(said)
    written = as_files(folder)
    assert sorted(written.keys() ^ files.keys()) == []
    assert [name for name in files if written[name] != files[name]] == []


def summarise(results):
    return sorted((r.input, r.status, r.error and str(r.error)) for r in results)


def as_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def find_workers():
    """Processes that hold a network, by their nodes' process ids."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes()
            parent = int(re.search(r"PPid:\t(\d+)", (entry / "status").read_text())[1])
        except (OSError, TypeError):
            continue
        if title.startswith(b"ray::MapWorker(MapBatches(Worker))"):
            found[int(entry.name)] = parent
    return found


def collect(results, disturbances):
    """All results, with something done to the cluster once there are so many."""
    done = []
    with closing(results):
        for result in results:
            done.append(result)
            disturbances.get(len(done), int)()
    return done


def find_victim():
    """A process that holds a network, and the raylet that it belongs to."""
    deadline = time.monotonic() + 300
    while not (workers := find_workers()):
        assert time.monotonic() < deadline, "there is no worker to lose"
        time.sleep(0.05)
    return next(iter(workers.items()))


def test_a_worker_is_killed_and_a_node_removed(nodes, bulk, local, tmp_path):
    lost = []

    def kill():
        worker, _ = find_victim()
        os.kill(worker, signal.SIGKILL)
        lost.append(worker)

    def remove():
        _, raylet = find_victim()
        (node,) = (n for n in nodes.worker_nodes if raylet_of(n) == raylet)
        nodes.remove_node(node)
        lost.append(raylet)
        nodes.add_node(num_cpus=1)

    results = collect(bulk(), {6: kill, 12: remove})
    assert len(lost) == 2
    check_same(results, tmp_path / "bulk", local)
    assert {result.stats.device for result in results if result.stats} == {"cpu"}


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


def test_from_store_to_store_by_the_command(nodes, store, run, many, tmp_path):
    store.put(f"{many}/part0", "bucket/in/part0", recursive=True)
    common = ("upscale", "s3://bucket/in", "-r", "-m", "bicubic", "-x", 2)
    call = (*common, "-o", "s3://bucket/out/", "--engine", "ray", "--json-lines")
    done = run(*call)
    assert done.exit_code == 7, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert Counter(r["status"] for r in records) == {"done": 50, "failed": 1}
    assert "error: s3://bucket/in/part0/cut.png is damaged or cut off" in done.stderr
    folder = tmp_path / "local"
    local = run("upscale", many / "part0", *common[3:], "-o", f"{folder}/")
    assert local.exit_code == 7
    assert sorted(store.find("bucket/out")) == sorted(
        f"bucket/out/part0/{path.name}" for path in folder.iterdir()
    )
    for path in folder.iterdir():
        assert store.cat(f"bucket/out/part0/{path.name}") == path.read_bytes()
    again = run(*call)
    assert again.exit_code == 4
    assert "exists already" in again.stderr
    store.rm("bucket/out/part0/000_bicubic_x2.png")
    rest = run(*call, "--skip-existing")
    states = Counter(json.loads(line)["status"] for line in rest.stdout.splitlines())
    assert states == {"skipped": 49, "done": 1, "failed": 1}


def test_regions_of_one_picture_are_spread(nodes, run, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LARGE", 1000)
    for name in ("_LEAST_SIDE", "_MOST_SIDE"):
        monkeypatch.setattr(tiling, name, 64)
    planes = picture(200, 150)
    tifffile.imwrite(tmp_path / "scan.tif", planes, tile=(64, 64), photometric="rgb")
    local = run(
        *("upscale", tmp_path / "scan.tif", "-x", 2, "-m", "bicubic"),
        *("-o", tmp_path / "local.tif"),
    )
    assert local.exit_code == 0, local.stderr
    naming = Naming(
        model="bicubic", goal=Goal(2), output=f"{tmp_path}/bulk.tif", run="test"
    )
    (job,) = plan_jobs(expand_inputs([str(tmp_path / "scan.tif")]), naming)
    work = Work(
        naming=naming,
        upscaler={"model": "bicubic", "scale": 2},
    )
    result = do_large(job, work)
    assert result.error is None
    assert (result.status, result.job.width, result.job.height) == ("done", 300, 400)
    larger = tifffile.imread(tmp_path / "bulk.tif")
    np.testing.assert_array_equal(larger, imresize(planes, 2))
    assert (tmp_path / "bulk.tif").read_bytes() == (tmp_path / "local.tif").read_bytes()
