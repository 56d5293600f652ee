"""Errors that a user can act on, each with its exit code.

A message is one line: what went wrong, with which file, and what to do about it.
Only the command line (`srcli.cli.app`) turns these into exits.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the command line (documented in docs/errors.md)."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    INPUT = 3
    OUTPUT = 4
    WEIGHTS = 5
    DEVICE = 6
    PARTIAL = 7
    INTERRUPTED = 130
    TERMINATED = 143


class SrcliError(Exception):
    """Base of every expected failure; `exit_code` is what the process returns."""

    exit_code: ClassVar[ExitCode] = ExitCode.DEFECT


class UsageError(SrcliError):
    """An unknown or contradictory option, model, scale or configuration."""

    exit_code = ExitCode.USAGE


class InputError(SrcliError):
    """An input (picture, folder, data set) is missing or cannot be read."""

    exit_code = ExitCode.INPUT


class OutputError(SrcliError):
    """An output exists already or cannot be written."""

    exit_code = ExitCode.OUTPUT


class WeightsError(SrcliError):
    """Weights are missing, damaged, or do not fit the network."""

    exit_code = ExitCode.WEIGHTS


class DeviceError(SrcliError):
    """The device is absent, cannot do what was asked, or ran out of memory."""

    exit_code = ExitCode.DEVICE


class TrainingStoppedError(SrcliError):
    """Training ended early on Ctrl-C; a checkpoint was written."""

    exit_code = ExitCode.INTERRUPTED


class TrainingTerminatedError(TrainingStoppedError):
    """Training ended early on SIGTERM; a checkpoint was written."""

    exit_code = ExitCode.TERMINATED


class PartialFailureError(SrcliError):
    """Some of many inputs failed; the others are done."""

    exit_code = ExitCode.PARTIAL


def unknown(
    kind: str, name: str, known: Iterable[str], listed: str | None = None
) -> UsageError:
    """A `UsageError` for a name that is not in `known`, with the nearest ones.

    Args:
        kind: What the name stands for, for example "model".
        name: The name as the user gave it.
        known: Every valid name.
        listed: What to say of the valid names where they are too many for a line.
    """
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    listed = listed or ", ".join(names)
    return UsageError(f"unknown {kind} '{name}': {hint}known: {listed}")
