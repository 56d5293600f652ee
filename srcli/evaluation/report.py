"""A benchmark's rows as JSON, CSV, Markdown and LaTeX, and the files of them."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from srcli import __version__
from srcli.errors import OutputError, UsageError
from srcli.evaluation.benchmark import BenchmarkRequest, Metric, Row
from srcli.evaluation.contenders import DEFAULT_MODEL, Engine
from srcli.evaluation.picture import PictureResult, StageResult
from srcli.evaluation.sheets import list_sheets
from srcli.evaluation.stage_table import have_stages, have_weights
from srcli.storage import quote_path, show_message
from srcli.writing import write_whole

METRICS: tuple[Metric, ...] = get_args(Metric)
_PRECISION = 6  # decimals of the figures in JSON and CSV

_CSV_FIELDS = (
    *("dataset", "scale", "degradation", "protocol", "model", "ensemble", "image"),
    *("device", "precision"),
    *("images", *METRICS, "seconds"),
    *(f"paper_{name}" for name in (*METRICS, "source")),
    *(f"difference_{metric}" for metric in METRICS),
    *("parameters", "macs_720p"),
)
_STAGE_FIELDS = ("stage", "stage_name")  # where stages were asked for
_WEIGHT_FIELDS = ("weight",)  # where one of them has a weight
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def format_command(request: BenchmarkRequest) -> str:
    """The command line that measures the same again.

    Options that only say where files lie or go are left out.
    """
    chosen, engine, usual = request.selection, request.engine, Engine()
    models = chosen.models or (() if chosen.weights else (DEFAULT_MODEL,))
    words = ["srcli", "benchmark"]
    words += [word for name in request.datasets for word in ("-d", name)]
    words += [word for name in models for word in ("-m", name)]
    if chosen.scales is not None:
        words += ["-x", ",".join(str(scale) for scale in chosen.scales)]
    # A weight file brings its own degradation, which need not be the one measured.
    usual_degradation = "bi" if chosen.weights is None else None
    settings: tuple[tuple[str, object, object], ...] = (
        ("--degradation", chosen.degradation, usual_degradation),
        ("--protocol", chosen.protocol, "auto"),
        ("--weights", chosen.weights, None),
        ("--seed", request.seed, 0),
        ("--device", engine.device, usual.device),
        ("--precision", engine.precision, usual.precision),
        ("--tile", engine.tile, usual.tile),
        ("--tile-overlap", engine.overlap, usual.overlap),
    )
    for option, value, default in settings:
        if value != default:
            words += [option, str(value)]
    flags = {
        "--ensemble": engine.ensemble,
        "--stages": request.stages,
        "--ifc": request.ifc,
        "--gray-as-rgb": request.gray_as_rgb,
    }
    words += [flag for flag, given in flags.items() if given]
    return " ".join(map(quote_path, words))


def build_document(
    rows: Sequence[Row], command: str, *, per_image: bool = False
) -> dict[str, Any]:
    """The JSON document; figures that are unknown or not finite are None.

    Where one of the rows has stages all have that key.

    Args:
        rows: What was measured.
        command: The command line that measures it again (`format_command`).
        per_image: Include every picture's figures.
    """
    return {
        "srcli": __version__,
        "command": command,
        "rows": [_describe_row(row, per_image, have_stages(rows)) for row in rows],
    }


def format_csv(rows: Sequence[Row], *, per_image: bool = False) -> str:
    """A table for programs: one line for each row and, if asked, for each picture.

    Lines of pictures have a name in the column `image`; those of rows have none. Where
    a row has stages, the line of each follows that of its row or picture, with its
    number in the column `stage` and its name in `stage_name`; where a network weighs
    its stages there is a column `weight`.
    """
    text = io.StringIO()
    staged = have_stages(rows)
    fields = (*_CSV_FIELDS, *(_STAGE_FIELDS if staged else ()))
    fields += _WEIGHT_FIELDS if have_weights(rows) else ()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerows(_list_csv_lines(row, per_image, staged))
    return text.getvalue()


def format_markdown(rows: Sequence[Row], command: str) -> str:
    """A table for a README, below the command line that measures it again.

    Stages have a table of their own below it.
    """
    lines = ["```sh", command, "```"]
    for sheet in list_sheets(rows):
        lines += ["", _join_markdown(sheet.titles)]
        lines.append(_join_markdown("---" if left else "---:" for left in sheet.left))
        lines += [_join_markdown(cells) for group in sheet.groups for cells in group]
    return "\n".join(lines) + "\n"


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; a row that is too short ends in empty cells."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        # A backslash stays: in code it is one.
        cells = [cell.replace("|", "\\|") for cell in row]
        cells += [""] * (len(head) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def quote_code(text: str) -> str:
    """`text` as Markdown's code on one line, whatever it holds."""
    line = show_message(text)
    if "`" in line:
        return f"`` {line} ``"
    return f"`{line}`" if line else ""


def format_latex(rows: Sequence[Row], command: str) -> str:
    r"""A `tabular` with the rules of `\usepackage{booktabs}`; stages have a second."""
    lines = ["% " + " ".join(command.split())]
    for sheet in list_sheets(rows):
        alignment = "".join("l" if left else "r" for left in sheet.left)
        lines.append(rf"\begin{{tabular}}{{{alignment}}}")
        lines += [r"\toprule", _join_latex(sheet.titles)]
        for group in sheet.groups:
            lines.append(r"\midrule")
            lines += [_join_latex(cells) for cells in group]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def check_reports(paths: Iterable[Path | None], overwrite: bool) -> None:
    """Refuse report files that cannot be written, before anything is measured.

    Args:
        paths: Files; None is left out.
        overwrite: Whether existing ones may be replaced.

    Raises:
        UsageError: If a file is named twice.
        OutputError: If a file exists and may not be replaced, or its folder cannot be
            written to.
    """
    seen = set()
    for path in paths:
        if path is None:
            continue
        if path.resolve() in seen:
            raise UsageError(f"{path} is named for two reports: give each its own file")
        seen.add(path.resolve())
        if path.is_dir():
            raise OutputError(f"{path} is a folder: name a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists: use --overwrite or another name")
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent} is no folder: make it first")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(f"{path.parent} is not writable: choose another folder")


def write_report(text: str, path: Path) -> None:
    """Write a report; the file appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with write_whole(path) as part:
        part.write_text(text, "utf-8", newline="")


def _round_finite(value: float | None) -> float | None:
    """`value` rounded; None if it is missing or, which JSON lacks, not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, _PRECISION)


def _describe_figures(measured: Row | PictureResult) -> dict[str, float | None]:
    """The measured figures of a row or of one picture."""
    names = (*METRICS, "seconds")
    return {name: _round_finite(getattr(measured, name)) for name in names}


def _describe_stages(row: Row, stages: Sequence[StageResult]) -> list[dict[str, Any]]:
    """The stages of a row or of one of its pictures, as JSON has them."""
    weights = [{"weight": _round_finite(weight)} for weight in row.stage_weights]
    return [
        {
            "stage": number,
            "name": name,
            "psnr": _round_finite(stage.psnr),
            "ssim": _round_finite(stage.ssim),
            **weight,
        }
        for number, (name, stage, weight) in enumerate(
            zip(row.stage_names, stages, weights or [{}] * len(stages), strict=True),
            start=1,
        )
    ]


def _describe_row(row: Row, per_image: bool, staged: bool) -> dict[str, Any]:
    """A row of the JSON document."""

    def describe(measured: Row | PictureResult) -> dict[str, Any]:
        stages = _describe_stages(row, measured.stages)
        return _describe_figures(measured) | ({"stages": stages} if staged else {})

    paper = difference = None
    if row.paper is not None:
        names = (*METRICS, "source", "note")
        paper = {name: getattr(row.paper, name) for name in names}
        difference = {
            metric: _round_finite(row.difference(metric)) for metric in METRICS
        }
    described: dict[str, Any] = {
        "dataset": row.dataset,
        "scale": row.scale,
        "degradation": row.degradation,
        "protocol": row.protocol,
        "model": row.model,
        "ensemble": row.ensemble,
        "device": row.device,
        "precision": row.precision,
        "images": len(row.pictures),
        **describe(row),
        "paper": paper,
        "difference": difference,
        "parameters": row.parameters,
        "macs_720p": row.macs_720p,
    }
    if per_image:
        described["per_image"] = [
            {"image": picture.image, **describe(picture)} for picture in row.pictures
        ]
    return described


def _list_csv_lines(row: Row, per_image: bool, staged: bool) -> list[dict[str, Any]]:
    """The line of a row, then those of its pictures, each with its stages after it."""
    described = _describe_row(row, per_image, staged)
    pictures = described.pop("per_image", ())
    for group in ("paper", "difference"):
        for name, value in (described.pop(group) or {}).items():
            described[f"{group}_{name}"] = value
    described.pop("paper_note", None)
    kept = ("dataset", "scale", "degradation", "protocol", "model", "ensemble")
    shared = {name: described[name] for name in kept}
    lines = []
    for line in (described, *({**shared, **picture} for picture in pictures)):
        stages = line.pop("stages", ())
        whose = {**shared, "image": line.get("image")}
        lines.append(line)
        lines += [
            {**whose, "stage_name": stage.pop("name"), **stage} for stage in stages
        ]
    return lines


def _join_markdown(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _join_latex(cells: Iterable[str]) -> str:
    """One line of a LaTeX table; a sign before a digit is set as a minus or plus."""
    return " & ".join(_escape_latex(cell) for cell in cells) + r" \\"


def _escape_latex(text: str) -> str:
    """`text` as LaTeX sets it literally, with a real minus sign."""
    if text[:1] in ("+", "-") and text[1:2].isdigit():
        return f"${text}$"
    return "".join(_LATEX.get(character, character) for character in text)
