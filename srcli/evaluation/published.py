"""The papers' own numbers: every cell of every results table, with its source.

`published.json` holds the tables as printed, misprints included (each has a note);
its "about" says how to read it. This module answers what a benchmark asks of it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from srcli.errors import unknown

Kind = Literal["comparison", "ablation", "figure"]

# Whose print counts where papers agree or draw. DRRN measures as protocol `y` does and
# has the IFC of the same rows; MRNet comes before RRRN, which has more misprints; DSRN
# is last because its bicubic Set14 is 0.1 dB off and its SSIM has three digits.
PREFERENCE = ("drrn", "mrnet", "rrrn", "drcn", "dsrn")


@dataclass(frozen=True, slots=True)
class Paper:
    """One of the five papers."""

    key: str  # our name for its network, for example "mrnet"
    name: str  # its own name for it, for example "MRNet"
    citation: str
    protocol: Literal["y", "rgb"]  # how it measured its own network


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResult:
    """What a paper prints for one model on one data set at one scale."""

    model: str  # lower case, as srcli names it
    label: str  # as the paper prints it
    dataset: str  # lower case; "set14/ppt3" is one picture of a set
    scale: int
    degradation: str  # "bi", "bd" or "dn"
    psnr: float | None = None  # dB
    ssim: float | None = None
    ifc: float | None = None
    parameters: int | None = None  # as rounded by the paper, in the same row
    macs: float | None = None  # multiply-accumulates for an output of 1280x720
    paper: str  # key of the paper
    kind: Kind  # of the table: methods, variants of one network, or a figure or text
    source: str  # for example "MRNet Table 3"
    note: str | None = None  # misprints, and what else a reader must know


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """Whose rows a table has, or whose points a figure, be they printed or not."""

    labels: Mapping[str, str]  # as printed, by model, in the paper's order
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSize:
    """The size that the papers print for one model at one scale."""

    parameters: int | None
    macs: float | None  # multiply-accumulates for an output of 1280x720
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row of a table: one model at one scale (None: at all scales)."""

    model: str
    scale: int | None
    parameters: int | None
    macs: float | None
    paper: str
    kind: Kind
    source: str
    results: tuple[PublishedResult, ...]


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    text = files("srcli.evaluation").joinpath("published.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@lru_cache(maxsize=1)
def papers() -> dict[str, Paper]:
    """The five papers by key."""
    return {key: Paper(key, **fields) for key, fields in _document()["papers"].items()}


def _read_row(table: dict[str, Any], row: dict[str, Any]) -> _Row:
    """One row of `published.json`; cells that the paper leaves empty are left out."""
    notes = row.get("notes", {})
    origin: dict[str, Any] = {
        "model": row["model"],
        "scale": row["scale"],
        "parameters": row.get("parameters"),
        "macs": row.get("macs"),
        "paper": table["paper"],
        "kind": table["kind"],
        "source": table["source"],
    }
    results = []
    for dataset, cell in row["results"].items():
        if cell is None:
            continue
        remarks = (notes.get(dataset), notes.get("*"), table.get("note"))
        results.append(
            PublishedResult(
                **origin,
                **dict(zip(table["metrics"], cell, strict=True)),
                label=row["label"],
                dataset=dataset,
                degradation=table["degradation"],
                note="; ".join(filter(None, remarks)) or None,
            )
        )
    return _Row(**origin, results=tuple(results))


@lru_cache(maxsize=1)
def _rows() -> tuple[_Row, ...]:
    return tuple(
        _read_row(table, row)
        for table in _document()["tables"]
        for row in table["rows"]
    )


@lru_cache(maxsize=1)
def results() -> tuple[PublishedResult, ...]:
    """Every printed result, in the order of `published.json`."""
    return tuple(result for row in _rows() for result in row.results)


def find_table(source: str) -> PublishedTable:
    """A table or figure, for example "DSRN Figure 3"; one for all its degradations.

    Raises:
        UsageError: If there is none.
    """
    tables = _document()["tables"]
    parts = [table for table in tables if table["source"] == source]
    if not parts:
        raise unknown("table", source, {table["source"] for table in tables})
    rows = [row for part in parts for row in part["rows"]]
    labels = {row["model"]: row["label"] for row in rows}
    return PublishedTable(labels=labels, note=parts[0].get("note"))


@lru_cache(maxsize=1)
def _index() -> dict[tuple[str, str, int, str], list[PublishedResult]]:
    index = defaultdict(list)
    for result in results():
        key = (result.model, result.dataset, result.scale, result.degradation)
        index[key].append(result)
    return dict(index)


def _home(model: str) -> str:
    """The paper that proposes `model`, if it is one of the five."""
    return model.split("-")[0]


def _rank(model: str, paper: str, kind: Kind) -> tuple[bool, bool, int]:
    """Sorts the model's own paper first, then tables of methods, then `PREFERENCE`."""
    return paper != _home(model), kind != "comparison", PREFERENCE.index(paper)


def every(
    model: str, dataset: str, scale: int, degradation: str = "bi"
) -> tuple[PublishedResult, ...]:
    """Everything the papers print for one cell, the most relevant source first.

    That is the model's own paper before the others, and within a paper the tables that
    compare methods before ablations and figures.

    Args:
        model: For example "mrnet", "drrn-b1u9", "vdsr" or "bicubic", in any case.
        dataset: For example "set5", in any case.
        scale: Enlargement.
        degradation: "bi", "bd" or "dn".
    """
    key = (model.lower(), dataset.lower(), scale, degradation.lower())
    found = _index().get(key, [])
    return tuple(sorted(found, key=lambda r: _rank(r.model, r.paper, r.kind)))


def _choose_paper(found: Sequence[PublishedResult], prefer: str | None) -> str:
    """The paper whose row stands for the model; see `lookup` for the rule."""
    printing = {result.paper for result in found}
    for paper in (prefer, _home(found[0].model)):
        if paper in printing:
            return paper
    values = {r.paper: r.psnr for r in found if r.psnr is not None}
    if not values:
        return found[0].paper
    # Counter keeps the order of first sight, and `found` is in order of preference.
    majority = Counter(values.values()).most_common(1)[0][0]
    return next(paper for paper, psnr in values.items() if psnr == majority)


def _merge(parts: Sequence[PublishedResult]) -> PublishedResult:
    """One result of one paper, completed from its other tables of the same kind."""
    merged = parts[0]
    sources, notes = [merged.source], [merged.note] if merged.note else []
    for part in parts[1:]:
        metrics = ("psnr", "ssim", "ifc")
        gained = {
            name: getattr(part, name)
            for name in metrics
            if getattr(merged, name) is None and getattr(part, name) is not None
        }
        if gained:
            merged = replace(merged, **gained)
            sources.append(part.source)
            if part.note:
                notes.append(f"{', '.join(gained).upper()}: {part.note}")
    return replace(merged, source=", ".join(sources), note="; ".join(notes) or None)


def lookup(
    model: str,
    dataset: str,
    scale: int,
    degradation: str = "bi",
    *,
    prefer: str | None = None,
) -> PublishedResult | None:
    """The published result to set beside a measured one, or None if there is none.

    For a network of the five papers and its variants: its own paper's. For bicubic and
    for other methods, or where its own paper leaves a data set out: the PSNR that most
    papers print, from the first of them in `PREFERENCE`. PSNR, SSIM and IFC that one
    paper prints in two tables of methods (DRRN Tables 2 and 3) come in one result.

    Args:
        model: For example "mrnet", "drrn-b1u9", "vdsr" or "bicubic", in any case.
        dataset: For example "set5", in any case.
        scale: Enlargement.
        degradation: "bi", "bd" or "dn".
        prefer: Key of the paper to take if it has the cell, for example "rrrn".

    Raises:
        UsageError: If `prefer` is none of the five papers.
    """
    if prefer is not None and prefer.lower() not in papers():
        raise unknown("paper", prefer, papers())
    found = every(model, dataset, scale, degradation)
    if not found:
        return None
    paper = _choose_paper(found, prefer.lower() if prefer else None)
    parts = [result for result in found if result.paper == paper]
    methods = [result for result in parts if result.kind == "comparison"]
    return _merge(methods or parts[:1])


def _first_sized(rows: Iterable[_Row], name: str) -> _Row | None:
    return next((row for row in rows if getattr(row, name) is not None), None)


def published_size(model: str, scale: int) -> PublishedSize | None:
    """Parameters and multiply-accumulates as printed, or None if no paper prints any.

    Each of the two comes from the model's own paper where that prints it, else from
    the others in the order of `PREFERENCE`.

    Args:
        model: For example "mrnet", "drcn" or "vdsr", in any case.
        scale: Enlargement.
    """
    rows = sorted(
        (r for r in _rows() if r.model == model.lower() and r.scale in (scale, None)),
        key=lambda r: _rank(r.model, r.paper, r.kind),
    )
    parameters, macs = _first_sized(rows, "parameters"), _first_sized(rows, "macs")
    origins = dict.fromkeys(row.source for row in (parameters, macs) if row)
    if not origins:
        return None
    return PublishedSize(
        parameters=parameters.parameters if parameters else None,
        macs=macs.macs if macs else None,
        source=", ".join(origins),
    )
