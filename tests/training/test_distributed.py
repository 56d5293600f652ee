"""Several processes: they step as one does, stop together, and fail with one voice.

The processes that the tests start run this file as a program.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from srcli.errors import DeviceError, InputError, SrcliError, UsageError
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.catalog import read_weights
from srcli.training import launcher, worker
from srcli.training.distributed import ALONE, World
from srcli.training.launcher import launch, run_processes
from srcli.training.recipe import load_recipe
from srcli.training.worker import is_main_process, is_worker, join_world

CPU = torch.device("cpu")
CONFIG = {"width": 4, "blocks": 1, "recursions": [1, 2, 2]}


def run_program(count, *arguments):
    run_processes(count, [sys.executable, __file__, *(str(a) for a in arguments)])


# What the processes do


def train_by_hand(world):
    """Six steps of a network of three scales; its weights end to end.

    Crops do not divide evenly, and in one step only the first process has one.
    """
    torch.manual_seed(5)
    network = MRNet(MRNetConfig(**CONFIG, scales=(2, 3, 4)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(11)
    for scale, count in ((2, 3), (3, 4), (4, 5), (2, 1), (3, 2), (2, 4)):
        lr = torch.rand(count, 3, 6, 6, generator=generator)
        hr = torch.rand(count, 3, 6 * scale, 6 * scale, generator=generator)
        mine = slice(world.rank, None, world.size)
        optimizer.zero_grad(set_to_none=True)
        if len(lr[mine]):
            error = (network(lr[mine], scale) - hr[mine]).abs().mean()
            (error * len(lr[mine]) / count).backward()
        world.sum_gradients(network.parameters())
        optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def add_gradients(world):
    """Sums of gradients that all, one and none of the processes have."""
    weights = [
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(3)),
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(2, 2, 2, 1).to(memory_format=torch.channels_last)),
    ]
    weights[0].grad = torch.tensor([1.0, 10.0]) * (world.rank + 1)
    if world.rank == 1:
        weights[1].grad = torch.tensor([1.0, 2.0, 3.0])
    steps = torch.arange(8.0).reshape(2, 2, 2, 1)
    weights[3].grad = steps.to(memory_format=torch.channels_last)
    world.sum_gradients(weights)
    return [None if w.grad is None else w.grad.flatten().tolist() for w in weights]


def copied_weights(world):
    torch.manual_seed(world.rank)
    layer = nn.BatchNorm1d(3)
    nn.init.normal_(layer.weight)
    layer.num_batches_tracked += 7 + world.rank
    world.copy_weights(layer)
    return [*layer.weight.tolist(), int(layer.num_batches_tracked)]


def work_together(world, folder):
    second = signal.SIGINT if world.rank == 1 else None
    both = signal.SIGINT if world.rank == 1 else signal.SIGTERM
    found = {
        "world": [world.rank, world.size, world.is_main, str(world.device)],
        "gradients": add_gradients(world),
        "signals": [world.any_signal(n) for n in (None, second, both)],
        "shared": world.share({"psnr": 31.5, "over": True} if world.is_main else {}),
        "sum": float(world.sum_scalar(torch.tensor(world.rank + 1.0))),
        "copied": copied_weights(world),
        "trained": train_by_hand(world).tolist(),
    }
    (folder / f"{world.rank}.json").write_text(json.dumps(found))
    sys.stdout.write(f"the result of {world.rank}\n")


def step_until_told(world, folder):
    """What the loop does when it is stopped: the main process writes, all leave."""
    step = 0
    with StopSignals() as signals:
        stopped = None
        while stopped is None and step < 10_000:
            time.sleep(0.01)
            step += 1
            stopped = world.any_signal(signals.received)
            (folder / f"{world.rank}.ready").touch()
        if world.is_main:
            wait_for(folder / "told")
            (folder / "checkpoint").write_text(str(step))
    signals.received = stopped
    signals.raise_received(f"at step {step}")


def fail_together(world, folder):
    raise UsageError("the batch is odd")


def fail_apart(world, folder):
    if world.rank == 1:
        raise InputError("picture.png is damaged")
    world.barrier()


def stumble(world, folder):
    raise ValueError("a defect")


def run_as_worker(name, folder):
    """As the command line does it: an error is logged, and becomes the exit code."""
    logging.basicConfig(format="%(message)s")
    try:
        with join_world(CPU) as world:
            globals()[name](world, Path(folder))
    except SrcliError as error:
        logging.getLogger("srcli").error("%s", error)
        raise SystemExit(error.exit_code) from error
    finally:
        (Path(folder) / f"{os.environ['RANK']}.left").touch()


def wait_to_be_ended(folder):
    """A process that has not joined the others yet."""
    (Path(folder) / f"{os.environ['RANK']}.ready").touch()
    time.sleep(60)


def launch_and_tell(folder, name):
    """What a launcher does; how it ended is left in a file."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    kind = message = None
    try:
        run_program(2, name, folder)
    except SrcliError as error:
        kind, message = type(error).__name__, str(error)
    restored = [signal.getsignal(number) for number in numbers] == before
    document = {"kind": kind, "message": message, "restored": restored}
    (Path(folder) / "end.json").write_text(json.dumps(document))


# What comes of it


@pytest.fixture(scope="module")
def runs():
    """What one run of two processes came to, for all tests that look at it."""
    return {}


@pytest.fixture
def together(runs, tmp_path, capfd):
    """What each of two processes found, after they have worked together."""
    if not runs:
        run_program(2, "work_together", tmp_path)
        runs["printed"] = capfd.readouterr()
        files = [tmp_path / f"{rank}.json" for rank in (0, 1)]
        runs["found"] = [json.loads(file.read_text()) for file in files]
    return runs["found"]


def test_two_processes_know_which_is_the_main_one(together):
    assert [each["world"] for each in together] == [
        [0, 2, True, "cpu"],
        [1, 2, False, "cpu"],
    ]


def test_gradients_are_summed_and_stay_away_where_nobody_has_one(together):
    doubled = [2.0 * step for step in range(8)]
    for each in together:
        assert each["gradients"] == [[3.0, 30.0], [1.0, 2.0, 3.0], None, doubled]


def test_all_agree_on_signals_values_and_weights(together):
    for each in together:
        assert each["signals"] == [None, signal.SIGINT, signal.SIGTERM]
        assert each["shared"] == {"psnr": 31.5, "over": True}
        assert each["sum"] == 3.0
    assert together[0]["copied"] == together[1]["copied"]
    assert together[0]["copied"][3] == 7


def test_two_processes_train_as_one_with_the_whole_batch(together):
    alone = train_by_hand(ALONE)
    for each in together:
        torch.testing.assert_close(
            torch.tensor(each["trained"]), alone, rtol=0, atol=1e-5
        )
    assert together[0]["trained"] == together[1]["trained"]
    torch.manual_seed(5)
    start = MRNet(MRNetConfig(**CONFIG, scales=(2, 3, 4)))
    start = torch.cat([weight.detach().flatten() for weight in start.parameters()])
    assert (alone - start).abs().max() > 1e-3


def test_one_process_alone_changes_nothing():
    weight = nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([weight])
    assert weight.grad is None
    weight.grad = torch.tensor([1.0, 2.0])
    ALONE.sum_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]
    assert ALONE.any_signal(None) is None
    assert ALONE.any_signal(signal.SIGTERM) == signal.SIGTERM
    assert ALONE.share("this") == "this"
    assert float(ALONE.sum_scalar(torch.tensor(2.0))) == 2.0
    assert ALONE.is_main
    ALONE.barrier()


def test_only_the_main_process_prints(together, runs):
    assert runs["printed"] == ("the result of 0\n", "")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("fail_apart", InputError, "picture.png is damaged"),
        ("fail_together", UsageError, "the batch is odd"),
    ],
)
def test_a_failure_is_told_once_and_as_what_it_was(
    name, kind, message, tmp_path, capfd
):
    with pytest.raises(kind) as caught:
        run_program(2, name, tmp_path)
    assert str(caught.value) == message
    # With -v, the traceback of the process that failed is shown as the cause.
    assert f"in {name}" in str(caught.value.__cause__)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.left", "1.left"]


@pytest.fixture
def launcher_of(tmp_path):
    """A function that starts a launcher in a process of its own, to be signalled."""
    started = []

    def start(name):
        child = subprocess.Popen(
            [sys.executable, __file__, "launch", str(tmp_path), name],
            env={**os.environ, "TMPDIR": str(tmp_path)},  # a killed one's stays behind
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(child)
        wait_for(tmp_path / "0.ready", tmp_path / "1.ready")
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def end_of(child, folder):
    """How the launcher ended; it prints nothing."""
    printed, _ = child.communicate(timeout=100)
    assert printed == b""
    return json.loads((folder / "end.json").read_text())


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (signal.SIGTERM, "TrainingTerminatedError", "terminated"),
        (signal.SIGINT, "TrainingStoppedError", "interrupted"),
    ],
)
def test_a_signal_stops_all_of_them_with_a_checkpoint(
    number, kind, word, tmp_path, launcher_of
):
    child = launcher_of("step_until_told")
    # Twice, as the impatient do: the checkpoint is not lost.
    for _ in range(2):
        child.send_signal(number)
        time.sleep(0.2)
    (tmp_path / "told").touch()
    end = end_of(child, tmp_path)
    step = (tmp_path / "checkpoint").read_text()
    message = f"{word} at step {step}"
    assert end == {"kind": kind, "message": message, "restored": True}


def wait_for(*paths):
    deadline = time.monotonic() + 100
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"waited in vain for {paths}"
        time.sleep(0.02)


def test_nothing_runs_on_when_the_launcher_is_killed(tmp_path, launcher_of):
    child = launcher_of("step_until_told")
    child.kill()
    child.wait()
    (tmp_path / "told").touch()
    wait_for(tmp_path / "checkpoint", tmp_path / "0.left", tmp_path / "1.left")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("os.kill(os.getpid(), 9)", DeviceError, "device 1 ended by SIGKILL: perhaps"),
        ("os.abort()", SrcliError, "device 1 ended by SIGABRT"),
        (
            "print('no disk', file=sys.stderr); sys.exit(4)",
            SrcliError,
            "device 1 ended with exit code 4: no disk",
        ),
        # Nothing of the launcher's own gets at the arguments.
        ("sys.exit(sys.argv[1] != '$${local_rank}')", None, ""),
    ],
)
def test_processes_that_end_without_a_word_are_spoken_for(code, kind, message, capfd):
    program = f"import os, sys, time\nif os.environ['RANK'] == '1': {code}\n"
    waits = "time.sleep(0 if os.environ['RANK'] == '1' or not sys.argv[2:] else 60)"
    command = [sys.executable, "-c", program + waits, "$${local_rank}"]
    if kind is None:
        run_processes(2, command)
        return
    with pytest.raises(kind, match=message):
        run_processes(2, [*command, "wait"])
    assert capfd.readouterr() == ("", "")


def test_a_signal_before_the_training_says_that_nothing_was_kept(tmp_path, launcher_of):
    child = launcher_of("wait_to_be_ended")
    child.send_signal(signal.SIGINT)
    end = end_of(child, tmp_path)
    assert end["kind"] == "TrainingStoppedError"
    assert "no new checkpoint" in end["message"]


def test_a_defect_is_named(tmp_path, capfd):
    with pytest.raises(SrcliError, match="ValueError: a defect") as caught:
        run_program(1, "stumble", tmp_path)
    assert caught.value.exit_code == 1


def test_groups_that_make_no_sense_are_refused(monkeypatch):
    monkeypatch.setattr(launcher, "run_processes", None)
    with pytest.raises(UsageError, match="at least 1"):
        launch(0, "cpu", [])
    monkeypatch.setattr(launcher, "choose_device", torch.device)
    monkeypatch.setattr(worker.torch.cuda, "device_count", lambda: 3)
    with pytest.raises(DeviceError, match="3 CUDA devices, not 4"):
        launch(4, "cuda", [])
    with pytest.raises(UsageError, match="leave its number out"):
        launch(2, "cuda:1", [])
    with pytest.raises(UsageError, match="one mps device only"):
        launch(2, "mps", [])


def test_the_arguments_go_to_every_process_as_they_are(monkeypatch):
    calls = []
    monkeypatch.setattr(launcher, "run_processes", lambda *call: calls.append(call))
    launch(3, "cpu", ["-v", "train", "--data", "a b"])
    command = [sys.executable, "-m", "srcli", "-v", "train", "--data", "a b"]
    assert calls == [(3, command)]


def test_networks_and_batches_that_cannot_be_divided_are_refused():
    two = World(size=2)
    recipe = load_recipe("drrn", "fast", {"batch": 4})
    whole = DRRN(DRRNConfig(width=4, units=1, norm="batch"))
    with pytest.raises(UsageError, match="drrn normalises over the batch"):
        two.check_divisible(whole, recipe)
    ALONE.check_divisible(whole, recipe)
    network = MRNet(MRNetConfig(**CONFIG))
    two.check_divisible(network, load_recipe("mrnet", "fast", {"batch": 2}))
    with pytest.raises(UsageError, match="2 devices cannot share 1 crops"):
        two.check_divisible(network, load_recipe("mrnet", "fast", {"batch": 1}))
    divided = {"batch": 3, "scale_mode": "all", "scales": [2, 3, 4]}
    with pytest.raises(UsageError, match="--set batch=6"):
        two.check_divisible(network, load_recipe("mrnet", "fast", divided))


def test_without_a_group_a_process_is_alone():
    assert not is_worker()
    assert is_main_process()
    with join_world(torch.device("meta")) as world:
        assert world == World(device=torch.device("meta"))


def test_the_processes_of_a_machine_divide_its_threads(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        with join_world(CPU):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 6
        monkeypatch.setenv("OMP_NUM_THREADS", "5")  # somebody has thought about it
        with join_world(CPU):
            assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_train_on_two_devices_gives_the_weights_of_one(tmp_path, picture, run_process):
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        image = Image.fromarray(picture(40, 44 + number))
        image.save(tmp_path / "pictures" / f"{number}.png")
    common = ["train", "-m", "mrnet", "--data", "pictures", "--val", "none"]
    common += ["--device", "cpu", "--precision", "fp32", "--steps", "6", "--json"]
    for field in ("config.width=4", "config.blocks=1", "config.recursions=[1,2,2]"):
        common += ["--set", field]
    for field in ("crop=8", "batch=5", "optimizer=sgd", "momentum=0"):
        common += ["--set", field]
    common += ["--set", "learning_rate=0.05", "--set", "warmup=0"]
    results = []
    for devices in (1, 2):
        out = f"run{devices}"
        done = run_process(*common, "--devices", devices, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)["steps"] == 6
        assert b"Traceback" not in done.stderr
        network = read_weights(tmp_path / out / "last.safetensors")
        results.append(network.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-5)


def test_train_on_two_devices_fails_with_one_line(tmp_path, run_process):
    (tmp_path / "pictures").mkdir()
    call = ["train", "-m", "mrnet", "--data", "pictures", "--val", "none"]
    done = run_process(*call, "--device", "cpu", "--devices", 2, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.decode().startswith("error: no training pictures")
    assert len(done.stderr.decode().splitlines()) == 1


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        launch_and_tell(*sys.argv[2:])
    elif sys.argv[1] == "wait_to_be_ended":
        wait_to_be_ended(*sys.argv[2:])
    else:
        run_as_worker(*sys.argv[1:])
