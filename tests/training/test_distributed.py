"""Several processes: they step as one does, stop together, and fail with one voice.

Some of the processes that the tests start run this file as a program.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from srcli.cli import app
from srcli.errors import (
    DeviceError,
    InputError,
    OutputError,
    SrcliError,
    TrainingStoppedError,
    TrainingTerminatedError,
    UsageError,
)
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.weight_file import read_weights
from srcli.training import distributed, run
from srcli.training.distributed import ALONE, World, catch_stops, join_world, launch
from srcli.training.loop import Trainer
from srcli.training.recipe import load_recipe, parse_assignments
from srcli.training.run import train

FIELDS = (
    "config.width=4", "config.blocks=1", "config.recursions=[1,2,2]", "crop=8",
    "batch=5", "optimizer=sgd", "momentum=0", "learning_rate=0.05", "warmup=0",
    "steps=8",
)  # fmt: skip


# What the processes do


def work_together(folder):
    """Everything that processes do together; then one of them fails."""
    with join_world(torch.device("cpu")) as world:
        weights = [nn.Parameter(torch.zeros(2, 2, 2, 1)) for _ in range(3)]
        steps = torch.arange(8.0).reshape(2, 2, 2, 1)
        weights[0].grad = steps.contiguous(memory_format=torch.channels_last)
        if world.rank == 1:
            weights[1].grad = steps.clone()
        world.sum_gradients(weights)
        layer = nn.BatchNorm1d(3)
        nn.init.constant_(layer.weight, world.rank + 5.0)
        layer.num_batches_tracked += 7 + world.rank
        world.copy_weights(layer)
        numbers = ((None, None), (None, signal.SIGINT), (signal.SIGTERM, signal.SIGINT))
        found = {
            "gradients": [
                w.grad if w.grad is None else w.grad.tolist() for w in weights
            ],
            "weights": [*layer.weight.tolist(), int(layer.num_batches_tracked)],
            "signals": [world.any_signal(each[world.rank]) for each in numbers],
            "shared": world.share({"psnr": 31.5} if world.is_main else {}),
            "gathered": world.gather(world.rank),
            "sum": float(world.sum_scalar(torch.tensor(world.rank + 1.0))),
        }
        (folder / f"{world.rank}.json").write_text(json.dumps(found))
        print(f"the result of {world.rank}", flush=True)  # noqa: T201
        if not world.is_main:
            raise InputError("picture.png is damaged")
        world.barrier()


def step_until_told(folder):
    """Steps until the user, whom the second process plays, presses Ctrl-C twice."""
    with join_world(torch.device("cpu")) as world, catch_stops() as received:
        step, stopped = 0, None
        while stopped is None:
            step += 1
            if step == 3 and not world.is_main:
                os.kill(os.getppid(), signal.SIGINT)
                os.kill(os.getppid(), signal.SIGINT)
            stopped = world.any_signal(max(received, default=None))
        if world.is_main:
            (folder / "checkpoint").write_text(str(step))
        if stopped == signal.SIGINT:
            raise TrainingStoppedError(f"interrupted at step {step}")
        raise TrainingTerminatedError(f"terminated at step {step}")


def lose_one_and_train(folder):
    """`srcli`, of whose processes the main one is killed when all go on, but once."""
    begin, mark = Trainer.__init__, folder / "killed"

    def init(trainer, *args, world, **options):
        if not mark.exists():
            world.barrier()
            if world.is_main:
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            world.barrier()
        begin(trainer, *args, world=world, **options)

    Trainer.__init__ = init
    del sys.argv[1:3]
    app.main()


# What comes of it


@pytest.fixture
def request_of(request_of):
    return partial(request_of, seed=3, overrides=parse_assignments(list(FIELDS)))


def test_processes_work_together_and_a_failure_is_told_once(tmp_path, capfd):
    with pytest.raises(SrcliError) as caught:
        launch(2, "cpu", [sys.executable, __file__, "work_together", str(tmp_path)])
    assert str(caught.value) == "picture.png is damaged"
    assert caught.value.exit_code == InputError.exit_code
    assert "in work_together" in caught.value.__notes__[0]  # for -v
    assert capfd.readouterr() == ("the result of 0\n", "")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    steps = torch.arange(8.0).reshape(2, 2, 2, 1)
    assert found[0] == {
        "gradients": [(2 * steps).tolist(), steps.tolist(), None],
        "weights": [5.0, 5.0, 5.0, 7],
        "signals": [None, signal.SIGINT, signal.SIGTERM],
        "shared": {"psnr": 31.5},
        "gathered": [0, 1],
        "sum": 3.0,
    }


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ("os.kill(os.getpid(), 9)", 6, "device 1 ended by SIGKILL: perhaps the"),
        ("sys.exit(4)", 4, "device 1 ended by exit code 4$"),
        # A user's signals, before there are any steps.
        ("os.kill(os.getppid(), 2)", 130, "^interrupted outside of the training steps"),
        ("os.kill(os.getppid(), 15)", 143, "^terminated outside of the training steps"),
    ],
)
def test_processes_that_end_without_a_word_are_spoken_for(end, code, message, capfd):
    program = f"import os, sys, time\nif os.environ['RANK'] == '1': {end}\n"
    command = [sys.executable, "-S", "-c", program + "time.sleep(300)"]
    with pytest.raises(SrcliError, match=message) as caught:
        launch(2, "cpu", command)
    assert caught.value.exit_code == code
    assert capfd.readouterr() == ("", "")
    assert not psutil.Process().children()


def test_ctrl_c_stops_all_of_them_with_a_checkpoint(tmp_path, capfd):
    with pytest.raises(SrcliError) as caught:
        launch(2, "cpu", [sys.executable, __file__, "step_until_told", str(tmp_path)])
    step = (tmp_path / "checkpoint").read_text()
    assert str(caught.value) == f"interrupted at step {step}"
    assert caught.value.exit_code == 130
    assert capfd.readouterr() == ("", "")
    assert not psutil.Process().children()


def test_a_process_ends_when_its_launcher_has():
    assert ALONE.any_signal(None) is None
    assert World(launcher=os.getppid()).any_signal(signal.SIGINT) == signal.SIGINT
    assert World(launcher=os.getpid()).any_signal(None) == signal.SIGTERM


def test_torchrun_goes_on_after_a_loss_to_the_weights_of_one_process(
    tmp_path, pictures, request_of
):
    train(request_of(max_minutes=0.0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
        "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint",
        f"127.0.0.1:{port}", "--rdzv-id", "mrnet-1", "--max-restarts", "3",
        "--local-addr", "127.0.0.1", __file__, "lose_one_and_train", str(tmp_path),
        "train", "-m", "mrnet", "--data", str(pictures), "--val", "none", "--seed", "3",
        "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "run"),
        *(word for field in FIELDS for word in ("--set", field)),
    ]  # fmt: skip
    settings = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment = {**os.environ, **settings, "OMP_NUM_THREADS": "1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    nodes = [subprocess.Popen(command, env=environment, **output) for _ in range(2)]
    try:
        said = "".join(node.communicate(timeout=600)[0] for node in nodes)
    finally:
        for node in nodes:
            node.terminate()  # and its processes with it
            node.wait()
    assert [node.returncode for node in nodes] == [0, 0], said
    assert said.count("began this run: it goes on from step 1\n") == 2
    assert said.count("run: 8 steps") == 1
    train(request_of(out=tmp_path / "alone"))
    one, two = (
        read_weights(tmp_path / name / "last.safetensors").state_dict()
        for name in ("alone", "run")
    )
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)


def test_under_torchrun_the_same_command_goes_on(request_of, caplog, monkeypatch):
    caplog.set_level("INFO")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    for name in ("RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "0")
    assert train(request_of(max_minutes=0.0)).steps == 1
    assert train(request_of(max_minutes=0.0)).steps == 2
    assert "the same command began this run: it goes on from step 1" in caplog.text
    with pytest.raises(OutputError, match="another command began"):
        train(request_of(seed=4))
    monkeypatch.setattr(distributed.log, "disabled", False)
    monkeypatch.setenv("SRCLI_LAUNCHER", str(os.getppid()))  # not with --devices
    with pytest.raises(OutputError, match="holds a run already: --resume"):
        train(request_of())


def test_two_devices_print_what_one_prints(run_process, tmp_path, pictures):
    command = (
        "train", "-m", "mrnet", "-x", "2", "--data", pictures, "--val", pictures,
        "--steps", "2",
        *(word for field in FIELDS for word in ("--set", field)),
        "--device", "cpu", "--precision", "fp32", "--json",
    )  # fmt: skip
    done = run_process(*command, "--out", tmp_path / "run", "--devices", "2")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["steps"], document["best_step"]) == (2, 2)
    assert (tmp_path / "run" / "export" / "mrnet_x2.json").is_file()
    assert b"2 x cpu" in done.stderr


def world_of(*others):
    """The main process of several, of which the others gather these values."""
    world = SimpleNamespace(rank=0, size=2, is_main=True, share=lambda value: value)
    world.gather = lambda value: [value, *others]
    return world


def test_nodes_that_have_different_folders_or_commands_are_told_so(request_of):
    begun = request_of(max_minutes=0.0)
    with pytest.raises(InputError, match=r"b has the checkpoint of step 7, .* none"):
        run.begin_run(begun, world_of((7, "b")))
    train(begun)
    resumed = dataclasses.replace(begun, resume=True)
    with pytest.raises(InputError, match="that of step 1: --out names a folder that"):
        run.begin_run(resumed, world_of((7, "b")))
    world = world_of(({"seed": "0", "steps": "6"}, "b"))
    found = run.find_difference(world, {"seed": 0, "steps": 5})
    assert found.startswith("steps is 5 on ")
    assert found.endswith(", 6 for process 1 on b")
    assert run.find_difference(world, {"seed": 0}) == ""


def test_what_cannot_be_divided_is_refused(monkeypatch):
    two, network = World(size=2), MRNet(MRNetConfig(width=4, blocks=1))
    whole = DRRN(DRRNConfig(width=4, units=1, norm="batch"))
    recipe = load_recipe("drrn", "fast", {"batch": 4})
    with pytest.raises(UsageError, match="drrn normalises over the batch"):
        run.check_divisible(two, whole, recipe)
    one = load_recipe("mrnet", "fast", {"batch": 1})
    with pytest.raises(UsageError, match="2 devices cannot share 1 crops"):
        run.check_divisible(two, network, one)
    monkeypatch.setattr(distributed, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(DeviceError, match="3 CUDA devices, not 4"):
        launch(4, "cuda", [])
    with pytest.raises(UsageError, match="leave its number out"):
        launch(2, "cuda:1", [])
    with pytest.raises(UsageError, match="one mps device only"):
        launch(2, "mps", [])


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](Path(sys.argv[2]))
    except SrcliError as error:
        distributed.log.error("%s", error)
        raise SystemExit(int(error.exit_code)) from error
