"""The Ray cluster that a run is on: one of its own in this machine, or one joined."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from srcli import __version__
from srcli.errors import DeviceError

_PATIENCE = 60.0  # seconds that a machine of the cluster has to answer
# What a cluster of our own is started with.
_SETTINGS = (
    ("RAY_USAGE_STATS_ENABLED", "0"),  # nobody is told of it
    ("RAY_BACKEND_LOG_LEVEL", "fatal"),  # of its C++ parts
    # Between two pictures that are written, Ray would end the process that writes,
    # and start another: a fifth of two cores went into that.
    ("RAY_idle_worker_killing_time_threshold_ms", "3600000"),
)
_LOGGERS = ("ray", "ray.data", "ray._private")


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """A cluster to work on, left again when the block ends.

    A program that is in a cluster already, by `ray.init`, stays in it.

    Args:
        address: Of a cluster: "host:port", "ray://host:port", or "auto" for one that
            runs here; None starts one in this machine and ends it.

    Raises:
        DeviceError: If there is none at the address, it cannot be started, or a machine
            of it has no srcli, or another version.
    """
    if ray.is_initialized():
        yield
        return
    with _quieted():
        # Ray would end the program by itself.
        handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            with _muted():
                ray.init(
                    address=address or "local",
                    include_dashboard=False if address is None else None,
                    log_to_driver=False,
                    configure_logging=False,
                )
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            hint = "if it asks for a token, set RAY_AUTH_MODE=token"
            what = f"no Ray cluster can be joined at {address} ({hint})"
            if address is None:
                what = "Ray cannot be started"
            raise DeviceError(f"{what}: {said}") from error
        finally:
            with suppress(ValueError):  # only the main thread can, and Ray could not
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        try:
            if address is not None:
                _check_machines()
            yield
        finally:
            ray.shutdown()


@contextmanager
def _quieted() -> Iterator[None]:
    """Ray saying nothing by itself, except where details are asked for.

    What it says of workers that end goes to stdout, where results go.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    worker = ray._private.worker
    said = getattr(worker, "_worker_logs_enabled", True)
    for name, value in _SETTINGS:
        os.environ.setdefault(name, value)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = said
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing written to stderr, also not by C++, which says how it says nothing."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_machines() -> None:
    """See that every machine of the cluster has this version of srcli."""
    ask = ray.remote(num_cpus=0, max_retries=1)(lambda: __import__("srcli").__version__)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    answers = [ask.options(scheduling_strategy=place).remote() for place in places]
    try:
        versions = set(ray.get(answers, timeout=_PATIENCE))
    except ray.exceptions.RayError as error:
        raise DeviceError(
            "a machine of the Ray cluster cannot run srcli: install srcli[ray] "
            f"{__version__} on all of them ({type(error).__name__})"
        ) from error
    if versions != {__version__}:
        others = ", ".join(sorted(versions - {__version__}))
        raise DeviceError(
            f"the Ray cluster has srcli {others}, and this is {__version__}: install "
            "the same on all machines"
        )
