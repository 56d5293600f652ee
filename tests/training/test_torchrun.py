"""torchrun: the same command begins a run and, after a restart, goes on with it.

The processes that torchrun starts here run this file as a program.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import HashStore

from srcli.errors import DeviceError, InputError, OutputError, UsageError
from srcli.pretrained.catalog import read_weights
from srcli.training import run
from srcli.training.checkpoint import TrainRequest
from srcli.training.loop import Trainer
from srcli.training.meeting import meet
from srcli.training.recipe import load_recipe, parse_assignments
from srcli.training.run import check_pictures, check_settings
from srcli.training.worker import is_restartable, join_world

STEPS = 12
FIELDS = (
    "config.width=4", "config.blocks=1", "config.recursions=[1,2,2]", "crop=8",
    "batch=5", "optimizer=sgd", "momentum=0", "learning_rate=0.05", "warmup=0",
    "checkpoint_every=3",
)  # fmt: skip
SMALL = {
    "config": {"width": 4, "blocks": 1}, "crop": 8, "batch": 2, "steps": 3,
    "warmup": 0, "learning_rate": 1e-3,
}  # fmt: skip


# What the processes do


def stand_still(folder, stops):
    """Let a process wait to be killed, each time before another step."""
    take_step = Trainer.train_step

    def step(trainer):
        mark = folder / f"{trainer.step}.pid"
        if stops.get(str(trainer.step)) == trainer.world.rank and not mark.exists():
            mark.with_suffix(".new").write_text(str(os.getpid()))
            mark.with_suffix(".new").rename(mark)
            time.sleep(300)
        return take_step(trainer)

    Trainer.train_step = step


# What comes of it


def train_command(folder, out):
    fields = [word for field in FIELDS for word in ("--set", field)]
    return [
        "train", "-m", "mrnet", "--data", str(folder), "--val", "none", "--out", out,
        "--device", "cpu", "--precision", "fp32", "--steps", str(STEPS), "--seed", "3",
        "--recipe", "fast", *fields,
    ]  # fmt: skip


@pytest.fixture
def request_of(tmp_path, pictures):
    """A function that makes a request for a tiny run."""

    def make(**values):
        settings = {
            "model": "mrnet", "out": tmp_path / "run", "data": (pictures,),
            "val": "none", "overrides": SMALL, "device": "cpu", "precision": "fp32",
            "seed": 3,
        }  # fmt: skip
        return TrainRequest(**{**settings, **values})

    return make


@pytest.fixture
def start_node(tmp_path):
    """A function that starts torchrun as on one of two nodes; all end with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []

    def start(name, *arguments):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
            "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--max-restarts", "3",
            "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1",
            *arguments,
        ]  # fmt: skip
        environment = {
            "GLOO_SOCKET_IFNAME": "lo", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"
        }  # fmt: skip
        with (tmp_path / name).open("wb") as said:
            node = subprocess.Popen(
                command, cwd=tmp_path, stdout=said, stderr=said,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
        started.append(node)
        return node

    yield start
    for node in started:
        # The agent first: its workers have sessions of their own, and it ends them.
        if node.poll() is None:
            node.terminate()
            with suppress(subprocess.TimeoutExpired):
                node.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def weights_of(folder):
    return read_weights(folder / "last.safetensors").state_dict()


def kill_at(step, folder, nodes):
    """Kill the process that waits before this step; it is told of by a file."""
    mark = folder / f"{step}.pid"
    deadline = time.monotonic() + 100
    while not mark.exists():
        assert all(node.poll() is None for node in nodes), "torchrun has ended"
        assert time.monotonic() < deadline, f"nothing came to step {step}"
        time.sleep(0.05)
    os.kill(int(mark.read_text()), signal.SIGKILL)


def test_killed_workers_are_restarted_and_end_in_the_same_weights(
    tmp_path, pictures, start_node, request_of
):
    # First the other process of the two, then the main one.
    program = [__file__, str(tmp_path), json.dumps({"4": 1, "11": 0})]
    nodes = [
        start_node(name, *program, *train_command(pictures, "run"))
        for name in ("one", "two")
    ]
    fields = parse_assignments([*FIELDS, f"steps={STEPS}"])
    run.train(request_of(out=tmp_path / "whole", overrides=fields))
    for step in (4, 11):
        kill_at(step, tmp_path, nodes)
    ends = [node.wait(100) for node in nodes]
    said = (tmp_path / "one").read_text() + (tmp_path / "two").read_text()
    assert ends == [0, 0], said
    for step in (3, 9):
        assert said.count(f"began this run: it goes on from step {step}\n") == 1, said
    assert said.count("run: 12 steps") == 1
    assert "Traceback" not in said
    expected, found = (weights_of(tmp_path / name) for name in ("whole", "run"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.fixture
def torchrun(monkeypatch):
    """As in a process that torchrun started, but alone."""
    monkeypatch.setattr(run, "is_restartable", lambda: True)


def test_the_same_command_goes_on_where_it_was_broken_off(
    request_of, tmp_path, torchrun, caplog
):
    caplog.set_level("INFO")
    train = run.train
    train(request_of(out=tmp_path / "start", overrides={**SMALL, "steps": 1}))
    begun = request_of(init=str(tmp_path / "start" / "last.safetensors"))
    train(dataclasses.replace(begun, out=tmp_path / "whole"))
    assert train(dataclasses.replace(begun, max_minutes=0.0)).steps == 1
    assert "goes on" not in caplog.text
    assert train(begun).steps == 3
    assert "the same command began this run: it goes on from step 1" in caplog.text
    expected, found = (weights_of(tmp_path / name) for name in ("whole", "run"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    # A batch system may give it again when all is done.
    assert train(begun).steps == 3


def test_another_run_is_not_gone_on_with(request_of, torchrun, monkeypatch):
    run.train(request_of())
    other = request_of(seed=4)
    for _ in range(2):
        with pytest.raises(OutputError, match="another command began"):
            run.train(other)
    (other.out / "run.json").write_text("[")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        run.train(request_of())
    (other.out / "run.json").unlink()
    with pytest.raises(OutputError, match="another command began"):
        run.train(request_of())
    monkeypatch.setattr(run, "is_restartable", lambda: False)
    with pytest.raises(OutputError, match="holds a run already: --resume"):
        run.train(request_of())


def test_a_run_that_was_extended_meanwhile_stays_so(request_of, torchrun):
    run.train(request_of())
    more = TrainRequest(
        model="mrnet", out=request_of().out, resume=True, overrides={"steps": 5}
    )
    assert run.train(dataclasses.replace(more, max_minutes=0.0)).steps == 4
    assert run.train(request_of()).steps == 5


def test_a_run_without_a_checkpoint_yet_begins_anew(
    request_of, torchrun, monkeypatch, caplog
):
    caplog.set_level("INFO")

    def fail(*_):
        raise InputError("the power is cut")

    with monkeypatch.context() as cut:
        cut.setattr(run, "_run", fail)
        with pytest.raises(InputError, match="power"):
            run.train(request_of())
    assert (request_of().out / "run.json").exists()
    assert run.train(request_of()).steps == 3
    assert "no checkpoint yet: the run begins anew" in caplog.text
    with pytest.raises(InputError, match="nothing to resume"):
        run.train(request_of(out=request_of().out / "no", resume=True))


def world_of(*others, **values):
    """A process of several: the others' values, and what the main one shares."""
    settings = {"rank": 0, "size": 1 + len(others), "local_rank": 0, "is_main": True}
    gathered = {"gather": lambda value: [value, *others], "share": lambda value: value}
    return SimpleNamespace(**{**settings, **gathered, **values})


def test_processes_take_what_the_main_one_found(request_of, tmp_path):
    begun = request_of()
    run.train(dataclasses.replace(begun, max_minutes=0.0))
    kept = json.loads((begun.out / "run.json").read_text())
    packed = (begun.out / "checkpoint.pt").read_bytes()
    world = world_of((-1, "main"), is_main=False, share=lambda _: (True, kept, packed))
    # On this node the folder is not there.
    elsewhere = dataclasses.replace(begun, out=tmp_path / "none", data=(), init="x")
    found = run.begin_run(elsewhere, world)
    assert found.state["step"] == 1
    assert found.request.resume
    assert (found.request.data, found.request.init) == (begun.data, None)
    world = world_of((-1, "main"), is_main=False, share=lambda _: (False, None, None))
    assert run.begin_run(elsewhere, world).state is None


def test_a_newer_checkpoint_on_another_node_is_not_overlooked(request_of):
    begun = request_of()
    with pytest.raises(InputError, match=r"b has the checkpoint of step 7, .* none"):
        run.begin_run(begun, world_of((7, "b")))
    run.train(dataclasses.replace(begun, max_minutes=0.0))
    resumed = dataclasses.replace(begun, resume=True)
    with pytest.raises(InputError, match="that of step 1: --out names a folder that"):
        run.begin_run(resumed, world_of((7, "b")))
    assert run.begin_run(resumed, world_of((-1, "b"))).state["step"] == 1
    # The process that looks for its node tells of what it sees; damage is none.
    seen = []
    world = world_of(
        (0, "b"),
        is_main=False,
        gather=lambda value: seen.append(value) or [value],
        share=lambda _: (False, None, None),
    )
    run.begin_run(begun, world)
    for file in begun.out.glob("checkpoint*"):
        file.write_bytes(b"damaged")
    run.begin_run(begun, world)
    assert [step for step, _ in seen] == [1, -1]


def test_nodes_that_see_other_pictures_are_told_so():
    sampler = SimpleNamespace(count=3, pixels=12_600, fingerprint="abc")
    check_pictures(world_of(((3, 12_600, "abc"), "b")), sampler)
    message = r"pictures: 3 of 0\.01 megapixels \(abc\) on .*, 2 of .* 1 on b: --data"
    with pytest.raises(InputError, match=message):
        check_pictures(world_of(((2, 8_400, "abd"), "b")), sampler)


def test_nodes_that_were_started_differently_are_told_so(request_of):
    recipe, told = load_recipe("mrnet", "fast", {"steps": 5}), []
    note = world_of(None, gather=lambda value: told.append(value) or [value])
    same = (request_of(), recipe, "fp32", None)
    check_settings(note, *same)
    check_settings(world_of((told[0][0], "b")), *same)
    other = {**told[0][0], "steps": "6"}
    with pytest.raises(UsageError, match=r"steps is 5 on .* and 6 for .* 1 on b"):
        check_settings(world_of((other, "b")), *same)
    taught = {**told[0][0], "--teacher": '"another"'}
    with pytest.raises(UsageError, match=r"--teacher is null on .* for .* 1 on b"):
        check_settings(world_of((taught, "b")), *same)


def meet_all(store, size):
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: meet(store, rank, size), range(size)))


def test_a_start_shares_a_part_of_the_store_that_earlier_ones_have_not_seen():
    store = HashStore()
    for value in ("one", "two"):
        places = meet_all(store, 3)
        assert not any(place.check(["address"]) for place in places)
        places[2].set("address", value)
        assert [place.get("address") for place in places] == [value.encode()] * 3


def test_processes_that_nobody_meets_say_so():
    for rank in (0, 1):
        with pytest.raises(DeviceError, match=f"process {rank} of 2 has not met"):
            meet(HashStore(), rank, 2, patience=0.05)


def test_a_process_knows_that_torchrun_started_it(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert not is_restartable()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert is_restartable()
    with join_world(torch.device("cpu")) as world:
        assert world.launcher == os.getppid()
    monkeypatch.setenv("SRCLI_LAUNCHER", "7")
    assert not is_restartable()


if __name__ == "__main__":
    from srcli.cli.app import main

    stand_still(Path(sys.argv[1]), json.loads(sys.argv[2]))
    del sys.argv[1:3]
    main()
