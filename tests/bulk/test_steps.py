"""The stages one after the other in this process, on files here and in memory."""

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
from srcli.errors import DeviceError, InputError, OutputError
from srcli.inference.batch import Piece, run_batch
from srcli.inference.jobs import Job, plan_jobs
from srcli.inference.sources import Source, expand_inputs
from srcli.inference.upscaler import Upscaler


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    """A working folder, and memory that only this test has."""
    monkeypatch.chdir(tmp_path)
    memory = UPath("memory:///").fs
    yield
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def do(monkeypatch):
    """A function that sends orders through all stages; their results in order."""

    def through(orders, work, begin=lambda index: 1):
        table = pack([(order.index, order) for order in orders])
        worker = Worker(work, begin)
        done = []
        for read in steps.read_pictures(table, work):
            for larger in worker(read):
                done += unpack(steps.write_pictures(larger, work))
        return [state for _, state in sorted(done, key=lambda item: item[0])]

    return through


def as_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def comparable(result):
    record = result.as_dict()
    return {**record, "seconds": None, "output": record["output"] and "there"}


def test_the_same_files_and_records_as_the_local_engine(
    many, tmp_path, make_naming, make_work, do
):
    sources = expand_inputs(["many"], recursive=True)
    jobs = plan_jobs(sources, make_naming("local/", run=None))
    local = list(run_batch(jobs, Upscaler("bicubic", 2)))

    naming = make_naming("bulk/")
    naming, orders = take_orders(sources, naming)
    bulk = do(orders, make_work(naming))
    assert as_files(tmp_path / "bulk") == as_files(tmp_path / "local")
    assert [comparable(r) for r in bulk] == [comparable(r) for r in local]
    assert sum(r.status == "failed" for r in bulk) == 3
    naming, orders = take_orders(sources, make_naming("bulk/", existing="skip"))
    states = [result.status for result in do(orders, make_work(naming))]
    assert states.count("skipped") == 200
    assert states.count("failed") == 3


def test_urls_are_read_once_and_written_whole(
    picture, make_naming, make_work, do, monkeypatch
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
    naming = make_naming("memory://out/deep/")
    naming = naming.for_sources(sources)
    orders = [Order(i, each, naming.folder) for i, each in enumerate(sources)]
    work = make_work(naming)
    empty, done = do(orders, work)
    assert empty.as_dict()["error"] == "memory://in/b.png is empty"
    assert done.output == "memory://out/deep/sub/a_bicubic_x2.png"
    assert done.bytes == len(UPath(done.output).read_bytes())
    assert Image.open(UPath(done.output).open("rb")).size == (64, 48)
    assert [name for name in opened if "in/sub" in name] == ["/in/sub/a.png"]


def test_what_is_done_twice_is_written_once(many, make_naming, make_work, do):
    naming = make_naming("bulk/")
    naming, orders = take_orders(expand_inputs(["many/part0/000.png"]), naming)
    work = make_work(naming)
    (first,) = do(orders, work)
    output = Path(first.output)
    before = output.stat()
    (second,) = do(orders, work)  # as after a worker that ended once it had written
    after = output.stat()
    assert second.status == "done"
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    # What somebody else has put there meanwhile stays.
    output.write_bytes(b"mine")
    (third,) = do(orders, work)
    assert isinstance(third.error, OutputError)
    assert "has appeared meanwhile" in str(third.error)
    assert output.read_bytes() == b"mine"


def test_a_picture_that_ends_its_workers_is_given_up(many, make_naming, make_work, do):
    naming = make_naming("bulk/")
    naming, orders = take_orders(expand_inputs(["many/part0"]), naming)
    counts = iter([1, 4] + [2] * len(orders))
    done = do(orders[:3], make_work(naming), lambda index: next(counts))
    assert [result.status for result in done] == ["done", "failed", "done"]
    assert isinstance(done[1].error, DeviceError)
    assert "its worker ended 3 times" in str(done[1].error)


def test_a_worker_that_cannot_work_says_so(many, make_naming, make_work):
    naming = make_naming("bulk/")
    naming, orders = take_orders(expand_inputs(["many/part0/000.png"]), naming)
    work = make_work(naming, {"model": "drcn", "scale": 2}, on_gpu=True)
    (read,) = steps.read_pictures(pack([(0, orders[0])]), work)
    ((_, state),) = unpack(next(iter(Worker(work, lambda index: 1)(read))))
    assert isinstance(state, DeviceError)


def test_a_defect_is_the_failure_of_one_picture(
    many, make_naming, make_work, do, monkeypatch
):
    real = steps.read_pieces

    def read(job, *given):
        if job.source.path.name == "002.png":
            raise KeyError("odd")
        return real(job, *given)

    monkeypatch.setattr(steps, "read_pieces", read)
    naming = make_naming("bulk/")
    naming, orders = take_orders(expand_inputs(["many/part0"]), naming)
    done = do(orders[:4], make_work(naming))
    assert [result.status for result in done] == ["done", "failed", "done", "done"]
    assert "002.png: a defect in srcli: KeyError: 'odd'" in str(done[1].error)
    assert done[1].error.exit_code == 1


def test_a_weight_file_goes_with_the_work(tmp_path, save_rrrn, make_naming, make_work):
    save_rrrn(tmp_path / "mine.safetensors", 3)
    content = (tmp_path / "mine.safetensors").read_bytes()
    (tmp_path / "mine.safetensors").unlink()
    fields = {"model": "mrnet", "scale": 3}
    work = make_work(make_naming(), fields, weights=("mine.safetensors", content))
    upscaler = pickle.loads(pickle.dumps(work)).make_upscaler()
    assert upscaler.name == "mine"
    assert upscaler.target_size(10, 20) == (30, 60)


def test_states_survive_a_table(picture):
    from srcli.imaging.files import Picture

    job = Job(source=Source(None), naming=None, error=InputError("odd"))
    state = Piece(job=job, picture=Picture(picture()))
    ((index, found),) = unpack(pack([(7, state)]))
    assert (index, str(found.job.error)) == (7, "odd")
    assert (found.picture.pixels == state.picture.pixels).all()


def test_a_file_of_another_network_goes_with_the_work(
    many, tmp_path, make_naming, make_work, do
):
    torch.save(compact(2).state_dict(), "2xAny.pth")
    content = Path("2xAny.pth").read_bytes()
    upscaler = Upscaler("2xAny.pth", device="cpu", precision="fp32")
    sources = expand_inputs(["many/part0/000.png", "many/part0/002.png"])
    jobs = plan_jobs(sources, make_naming("local/", model="2xAny", run=None))
    list(run_batch(jobs, upscaler))
    Path("2xAny.pth").unlink()
    fields = {"model": "mrnet", "scale": 2.0, "precision": "fp32"}
    naming = make_naming("bulk/", model="2xAny")
    naming, orders = take_orders(sources, naming)
    do(orders, make_work(naming, fields, weights=("2xAny.pth", content)))
    assert as_files(tmp_path / "bulk") == as_files(tmp_path / "local")
    assert sorted(as_files(tmp_path / "bulk")) == [
        "000_2xAny_x2.png",
        "002_2xAny_x2.png",
    ]
