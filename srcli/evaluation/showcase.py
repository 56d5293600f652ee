"""A benchmark as a web page: its tables, and where its networks gain most and least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from srcli import __version__
from srcli.errors import UsageError
from srcli.evaluation.crops import Crop
from srcli.evaluation.measurement import Row
from srcli.evaluation.tables import (
    format_fixed,
    list_tables,
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


def check_page(path: Path | None) -> None:
    """Refuse a name by which no browser would take the file for a page.

    Raises:
        UsageError: If it does not end in .html or .htm.
    """
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"--report writes a web page: name a file that ends in .html, not {path}"
        )


def write_benchmark(rows: Sequence[Row], command: str, path: Path) -> None:
    """Write the page: the command, the tables, then each network's crops.

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
    engines = dict.fromkeys(f"{r.device}, {r.precision}" for r in rows if r.device)
    facts = {"Device, precision": "; ".join(engines)} if engines else {}
    yield show_facts({"srcli": __version__, **facts})
    for table in list_tables(rows):
        yield show_table(table.titles, table.left, table.bodies)
    # What is shown of each network, by its anchor.
    shown = {f"crops-{n}": r for n, r in enumerate((r for r in rows if r.most), 1)}
    if not shown:
        return
    yield (
        "<p>Below are the parts of the pictures in which a network gains most and least"
        " over bicubic, pixel by pixel. Both are compared with the original by the"
        " network's own protocol; PSNR is of the luma of the part shown. Parts where"
        " hardly anything can go wrong are left out.</p>"
    )
    names = {
        anchor: isolate(f"{name_group(row)}, {name_model(row)}")
        for anchor, row in shown.items()
    }
    if len(shown) > 1:
        links = (f'<li><a href="#{a}">{name}</a></li>\n' for a, name in names.items())
        yield f"<nav><ul>\n{''.join(links)}</ul></nav>"
    for anchor, row in shown.items():
        yield f'<section id="{anchor}">'
        yield f"<h2>{names[anchor]}</h2>"
        for title, crops in (("Gains most", row.most), ("Gains least", row.least)):
            if crops:
                yield f"<h3>{title}</h3>"
                yield show_crops(_show(crop, name_model(row)) for crop in crops)
        yield "</section>"


def _show(crop: Crop, model: str) -> str:
    """One crop: bicubic, the network, the original."""
    before, after = (format_fixed(v, 2) for v in (crop.bicubic_psnr, crop.psnr))
    # Of the figures as shown, so that the page agrees with itself.
    gain = float(after) - float(before) if crop.gain else 0.0  # both may be infinite
    shots = (
        Shot("bicubic", crop.bicubic, note=f"{before} dB"),
        Shot(model, crop.ours, note=f"{after} dB"),
        Shot("original", crop.original),
    )
    caption = (
        f"<strong>{isolate(crop.image)}</strong>"
        f" at x {crop.window.left}, y {crop.window.top}:"
        f" <strong>{format_fixed(gain, 2, '+')} dB</strong>"
    )
    return show_crop(shots, caption)
