"""The papers' own numbers: every cell of every results table, with its source.

`published.json` holds the tables as printed, misprints included (each has a note);
its "about" says how to read it. This module answers what a benchmark asks of it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from srcli.errors import unknown

# Whose print counts where papers agree or draw. DRRN measures as protocol `y` does and
# has the IFC of the same rows; MRNet comes before RRRN, which has more misprints; DSRN
# is last because its bicubic Set14 is 0.1 dB off and its SSIM has three digits.
PREFERENCE = ("drrn", "mrnet", "rrrn", "drcn", "dsrn")

_Cell = tuple[str, str, int, str]  # model, data set, scale, degradation


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResult:
    """A paper's printed figures for one model on one data set at one scale."""

    model: str  # lower case, as srcli names it
    label: str  # as the paper prints it
    dataset: str  # lower case; "set14/ppt3" is one picture of a set
    scale: int
    degradation: str  # "bi", "bd" or "dn"
    psnr: float | None = None  # dB
    ssim: float | None = None
    ifc: float | None = None
    paper: str  # our name for its network
    kind: str  # "comparison" of methods, "ablation" of one network, "figure" or text
    source: str  # for example "MRNet Table 3"
    note: str | None = None  # misprints, and what else a reader must know


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """Whose rows a table has, or whose points a figure, be they printed or not."""

    labels: Mapping[str, str]  # as printed, by model, in the paper's order
    note: str | None


@cache
def _list_tables() -> list[dict[str, Any]]:
    text = files("srcli.evaluation").joinpath("published.json").read_text("utf-8")
    tables: list[dict[str, Any]] = json.loads(text)["tables"]
    return tables


@cache
def _index() -> Mapping[_Cell, list[PublishedResult]]:
    """Every printed result; cells that a paper leaves empty are left out."""
    index = defaultdict(list)
    for table in _list_tables():
        for row in table["rows"]:
            notes = row.get("notes", {})
            for dataset, cell in row["results"].items():
                if cell is None:
                    continue
                remarks = (notes.get(dataset), notes.get("*"), table.get("note"))
                result = PublishedResult(
                    **{key: row[key] for key in ("model", "label", "scale")},
                    **{key: table[key] for key in ("paper", "kind", "source")},
                    **dict(zip(table["metrics"], cell, strict=True)),
                    dataset=dataset,
                    degradation=table["degradation"],
                    note="; ".join(filter(None, remarks)) or None,
                )
                place = result.model, dataset, result.scale, result.degradation
                index[place].append(result)
    return index


def find_table(source: str) -> PublishedTable:
    """A table or figure, for example "DSRN Figure 3"; one for all its degradations.

    Raises:
        UsageError: If there is none.
    """
    parts = [table for table in _list_tables() if table["source"] == source]
    if not parts:
        raise unknown("table", source, {table["source"] for table in _list_tables()})
    rows = [row for part in parts for row in part["rows"]]
    labels = {row["model"]: row["label"] for row in rows}
    return PublishedTable(labels=labels, note=parts[0].get("note"))


def every(
    model: str, dataset: str, scale: int, degradation: str = "bi"
) -> tuple[PublishedResult, ...]:
    """Everything the papers print for one cell, the most relevant source first.

    That is the model's own paper before the others, and within a paper the tables that
    compare methods before ablations and figures.

    Names, for example "drrn-b1u9" or "vdsr" and "set5", may be in any case.
    """
    place = (model.lower(), dataset.lower(), scale, degradation.lower())

    def rank(result: PublishedResult) -> tuple[bool, bool, int]:
        others = result.paper != _home(result.model)
        return others, result.kind != "comparison", PREFERENCE.index(result.paper)

    return tuple(sorted(_index().get(place, ()), key=rank))


def _home(model: str) -> str:
    """The paper that proposes `model`, if it is one of the five."""
    return model.split("-")[0]


def lookup(
    model: str, dataset: str, scale: int, degradation: str = "bi"
) -> PublishedResult | None:
    """The published result to set beside a measured one, or None if there is none.

    For a network of the five papers and its variants: its own paper's. For bicubic and
    for other methods, or where its own paper leaves a data set out: the PSNR that most
    papers print, from the first of them in `PREFERENCE`. PSNR, SSIM and IFC that one
    paper prints in two tables of methods (DRRN Tables 2 and 3) come in one result.
    """
    found = every(model, dataset, scale, degradation)
    if not found:
        return None
    values = {r.paper: r.psnr for r in found if r.psnr is not None}
    paper = found[0].paper
    if values and paper != _home(found[0].model):
        # Counter keeps the order of first sight, and `found` is in order of preference.
        majority = Counter(values.values()).most_common(1)[0][0]
        paper = next(paper for paper, psnr in values.items() if psnr == majority)
    parts = [result for result in found if result.paper == paper]
    methods = [result for result in parts if result.kind == "comparison"]
    return _merge(methods or parts[:1])


def _merge(parts: Sequence[PublishedResult]) -> PublishedResult:
    """One result of one paper, completed from its other tables of the same kind."""
    merged = parts[0]
    sources, notes = [merged.source], [merged.note] if merged.note else []
    for part in parts[1:]:
        gained = {
            name: getattr(part, name)
            for name in ("psnr", "ssim", "ifc")
            if getattr(merged, name) is None and getattr(part, name) is not None
        }
        if gained:
            merged = replace(merged, **gained)
            sources.append(part.source)
            if part.note:
                notes.append(f"{', '.join(gained).upper()}: {part.note}")
    return replace(merged, source=", ".join(sources), note="; ".join(notes) or None)
