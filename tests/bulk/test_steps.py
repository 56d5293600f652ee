"""The steps one after the other in this process, on files here and in memory."""

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from spandrel_files import compact
from upath import UPath

from srcli.bulk import steps
from srcli.bulk.orders import Order, take_orders
from srcli.bulk.steps import Worker, pack, unpack
from srcli.errors import DeviceError, OutputError
from srcli.inference.batch import run_batch
from srcli.inference.jobs import plan_jobs
from srcli.inference.sources import expand_inputs
from srcli.inference.upscaler import Upscaler


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    """A working folder, and memory that only this test has."""
    monkeypatch.chdir(tmp_path)
    memory = UPath("memory:///").fs
    yield
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def do(orders, work, begin=lambda index: 1):
    """The results of orders that go through all steps, in their order."""
    worker = Worker(work, begin)
    done = []
    for read in steps.read_pictures(pack([(o.index, o) for o in orders]), work):
        for larger in worker(read):
            done += unpack(steps.write_pictures(larger, work))
    return [state for _, state in sorted(done, key=lambda item: item[0])]


def as_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def comparable(result):
    record = result.as_dict()
    return {**record, "seconds": None, "output": record["output"] and "there"}


def states(results):
    return [result.status for result in results]


def test_the_same_files_and_records_as_the_local_engine(many, make_naming, make_work):
    sources = expand_inputs(["many"], recursive=True)
    jobs = plan_jobs(sources, make_naming("local/", run=None))
    local = list(run_batch(jobs, Upscaler("bicubic", 2)))
    naming, orders = take_orders(sources, make_naming("bulk/"))
    bulk = do(orders, make_work(naming))
    assert as_files("bulk") == as_files("local")
    assert [comparable(r) for r in bulk] == [comparable(r) for r in local]
    assert states(bulk).count("failed") == 3
    naming, orders = take_orders(sources, make_naming("bulk/", existing="skip"))
    again = states(do(orders, make_work(naming)))
    assert (again.count("skipped"), again.count("failed")) == (100, 3)


def test_urls_are_read_once_and_written_whole(
    picture, make_naming, make_work, monkeypatch
):
    source = UPath("memory://in/sub/a.png")
    with source.open("wb") as file:
        Image.fromarray(picture()).save(file, "png")
    UPath("memory://in/b.png").write_bytes(b"")
    UPath("memory://in/.hidden.png").write_bytes(b"")
    opened = []
    files = type(source.fs)
    real = files._open
    monkeypatch.setattr(
        files, "_open", lambda *a, **k: (opened.append(a[1]), real(*a, **k))[1]
    )
    sources = expand_inputs(["memory://in"], recursive=True)
    naming = make_naming("memory://out/deep/").for_sources(sources)
    orders = [Order(i, each, naming.folder) for i, each in enumerate(sources)]
    empty, done = do(orders, make_work(naming))
    assert empty.as_dict()["error"] == "memory://in/b.png is empty"
    assert done.output == "memory://out/deep/sub/a_bicubic_x2.png"
    assert done.bytes == len(UPath(done.output).read_bytes())
    assert Image.open(UPath(done.output).open("rb")).size == (64, 48)
    assert [name for name in opened if "in/sub" in name] == ["/in/sub/a.png"]


def test_what_is_done_twice_is_written_once(many, make_naming, make_work):
    naming, orders = take_orders(
        expand_inputs(["many/part0/000.png"]), make_naming("bulk/")
    )
    work = make_work(naming)
    (first,) = do(orders, work)
    output = Path(first.output)
    before = output.stat()
    assert states(do(orders, work)) == ["done"]  # as after a worker that then ended
    after = output.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    # What somebody else has put there meanwhile stays.
    output.write_bytes(b"mine")
    (third,) = do(orders, work)
    assert isinstance(third.error, OutputError)
    assert output.read_bytes() == b"mine"


def test_what_befalls_a_picture_or_a_worker(many, make_naming, make_work, monkeypatch):
    naming, orders = take_orders(expand_inputs(["many/part0"]), make_naming("bulk/"))
    real = steps.read_pieces

    def read(job, *given):
        if job.source.path.name == "004.png":
            raise KeyError("odd")
        return real(job, *given)

    monkeypatch.setattr(steps, "read_pieces", read)
    begun = {0: 1, 1: 4, 3: 2}  # picture 1 has ended its worker three times
    done = do(orders[:4], make_work(naming), begun.get)
    assert states(done) == ["done", "failed", "failed", "done"]
    assert isinstance(done[1].error, DeviceError)
    assert "004.png: a defect in srcli: KeyError: 'odd'" in str(done[2].error)
    assert done[2].error.exit_code == 1
    unable = make_work(naming, {"model": "drcn", "scale": 2}, on_gpu=True)
    (read_table,) = steps.read_pictures(pack([(0, orders[0])]), unable)
    ((_, state),) = unpack(next(iter(Worker(unable, begun.get)(read_table))))
    assert isinstance(state, DeviceError)


def test_a_weight_file_goes_with_the_work(many, make_naming, make_work):
    torch.save(compact(2).state_dict(), "2xAny.pth")
    content = Path("2xAny.pth").read_bytes()
    upscaler = Upscaler("2xAny.pth", device="cpu", precision="fp32")
    sources = expand_inputs(["many/part0/000.png", "many/part0/002.png"])
    jobs = plan_jobs(sources, make_naming("local/", model="2xAny", run=None))
    list(run_batch(jobs, upscaler))
    Path("2xAny.pth").unlink()
    fields = {"model": "mrnet", "scale": 2.0, "precision": "fp32"}
    naming, orders = take_orders(sources, make_naming("bulk/", model="2xAny"))
    work = make_work(naming, fields, weights=("2xAny.pth", content))
    do(orders, pickle.loads(pickle.dumps(work)))
    assert as_files("bulk") == as_files("local")
    assert sorted(as_files("bulk")) == ["000_2xAny_x2.png", "002_2xAny_x2.png"]
