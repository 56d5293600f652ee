"""A benchmark as a web page: its table, and where its networks gain most and least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli import __version__
from srcli.errors import UsageError
from srcli.evaluation.crops import Crop
from srcli.evaluation.measurement import Row
from srcli.evaluation.tables import (
    format_fixed,
    list_sheets,
    name_group,
    name_model,
    name_set,
)
from srcli.pages.html import (
    Shot,
    escape,
    isolate,
    show_crop,
    show_crops,
    show_facts,
    show_table,
    write_page,
)

SUFFIXES = (".html", ".htm")


def check_page(path: Path | None) -> None:
    """Refuse a name by which no browser would take the file for a page.

    Raises:
        UsageError: If it ends in something else than one of `SUFFIXES`.
    """
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--report writes a web page: name a file that ends in .html, not {path}"
        )


def write_benchmark(rows: Sequence[Row], command: str, path: Path) -> None:
    """Write the page: the table, then for each network with crops those.

    Args:
        rows: What was measured.
        command: The command line that measures it again.
        path: Where; replaced if it is there.

    Raises:
        OutputError: If the file cannot be written.
    """
    sets = ", ".join(dict.fromkeys(name_set(row) for row in rows))
    title = f"Benchmark of {sets}"
    write_page(path, f"{title} - srcli", _list_parts(rows, command, title))


def _list_parts(rows: Sequence[Row], command: str, title: str) -> Iterator[str]:
    """The body of the page."""
    yield f"<h1>{isolate(title)}</h1>"
    yield f"<pre><code>{escape(command)}</code></pre>"
    yield show_facts(_list_facts(rows))
    for sheet in list_sheets(rows):
        yield show_table(sheet.titles, sheet.left, sheet.groups)
    shown = [row for row in rows if row.most]
    if not shown:
        return
    yield (
        "<p>Below are the parts of the pictures in which a network gains most and least"
        " over bicubic, pixel by pixel. Both are compared with the original by the"
        " network's own protocol; PSNR is of the luma of the part shown. Parts where"
        " hardly anything can go wrong are left out.</p>"
    )
    if len(shown) > 1:
        yield _show_contents(shown)
    for number, row in enumerate(shown):
        yield f'<section id="{_name_anchor(number)}">'
        yield f"<h2>{isolate(_name_row(row))}</h2>"
        for title, crops in (("Gains most", row.most), ("Gains least", row.least)):
            if crops:
                yield f"<h3>{title}</h3>"
                yield show_crops(_show(crop, name_model(row)) for crop in crops)
        yield "</section>"


def _list_facts(rows: Sequence[Row]) -> dict[str, str]:
    """What holds for the whole page."""
    engines = [f"{row.device}, {row.precision}" for row in rows if row.device]
    facts = {"srcli": __version__}
    if engines:
        facts["Device, precision"] = "; ".join(dict.fromkeys(engines))
    return facts


def _show_contents(rows: Sequence[Row]) -> str:
    """Links to the networks' crops."""
    links = "".join(
        f'<li><a href="#{_name_anchor(number)}">{isolate(_name_row(row))}</a></li>\n'
        for number, row in enumerate(rows)
    )
    return f"<nav><ul>\n{links}</ul></nav>"


def _name_anchor(number: int) -> str:
    return f"crops-{number + 1}"


def _name_row(row: Row) -> str:
    return f"{name_group(row)}, {name_model(row)}"


def _show(crop: Crop, model: str) -> str:
    """One crop: bicubic, the network, the original."""
    shots = (
        Shot("bicubic", _stack(crop.bicubic), note=_format_psnr(crop.bicubic_psnr)),
        Shot(model, _stack(crop.ours), note=_format_psnr(crop.psnr)),
        Shot("original", _stack(crop.original)),
    )
    place = f"x {crop.window.left}, y {crop.window.top}"
    caption = (
        f"<strong>{isolate(crop.image)}</strong> at {place}:"
        f" <strong>{_format_gain(crop)} dB</strong>"
    )
    return show_crop(shots, caption)


def _format_gain(crop: Crop) -> str:
    """The gain of the figures as shown, so that the page agrees with itself."""
    if crop.gain == 0:
        return format_fixed(0, 2, "+")  # both may be infinite
    before, after = (
        float(format_fixed(value, 2)) for value in (crop.bicubic_psnr, crop.psnr)
    )
    return format_fixed(after - before, 2, "+")


def _format_psnr(value: float) -> str:
    return f"{format_fixed(value, 2)} dB"


def _stack(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, C) of a crop that may be grey."""
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
