"""A benchmark's rows as a table on screen, and as JSON, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from srcli import __version__
from srcli.errors import OutputError, UsageError
from srcli.evaluation.benchmark import BenchmarkRequest, Metric, PictureResult, Row
from srcli.evaluation.columns import (
    LABELS,
    Column,
    format_fixed,
    list_columns,
    name_model,
    name_set,
)
from srcli.evaluation.contenders import DEFAULT_MODEL, Engine

METRICS: tuple[Metric, ...] = get_args(Metric)
_PRECISION = 6  # decimals of the figures in JSON and CSV

# What a narrow terminal does without, in this order; the files have it all.
_DROPPED = ("source", "macs", "parameters", "ifc paper", "ifc difference", "seconds")
_WIDE = 200  # columns, where the output is no terminal

_CSV_FIELDS = (
    *("dataset", "scale", "degradation", "protocol", "model", "ensemble", "image"),
    *("images", *METRICS, "seconds"),
    *(f"paper_{name}" for name in (*METRICS, "source")),
    *(f"difference_{metric}" for metric in METRICS),
    *("parameters", "macs_720p"),
)
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def write_command(request: BenchmarkRequest) -> str:
    """The command line that measures the same again.

    Options that only say where files lie or go are left out.
    """
    chosen, engine = request.selection, request.engine
    words = ["srcli", "benchmark"]
    for name in request.datasets:
        words += ["-d", name]
    for name in chosen.models or (() if chosen.weights else (DEFAULT_MODEL,)):
        words += ["-m", name]
    if chosen.scales is not None:
        words += ["-x", ",".join(map(str, chosen.scales))]
    settings: list[tuple[str, object, object]] = [
        ("--degradation", chosen.degradation, "bi"),
        ("--protocol", chosen.protocol, "auto"),
        ("--weights", chosen.weights, None),
        ("--device", engine.device, Engine.device),
    ]
    raise NotImplementedError
