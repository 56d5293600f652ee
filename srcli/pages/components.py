"""The parts of a page, as HTML: facts, tables, a slider, crops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srcli.pages.embed import embed_exact, embed_view
from srcli.pages.page import escape, isolate

_SMALLEST_SLIDER = 320  # CSS pixels of its longer side; a smaller picture is magnified


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture of a crop.

    Attributes:
        label: Whose picture it is.
        pixels: (h, w, C) uint8: grey, grey and alpha, RGB, or RGB and alpha.
        icc: Its colour profile.
        note: Stands below it, beside the label.
    """

    label: str
    pixels: NDArray[np.uint8]
    icc: bytes | None = None
    note: str = ""


def show_facts(facts: Mapping[str, str]) -> str:
    """Facts with their names."""
    parts = "".join(
        f"<div><dt>{isolate(name)}</dt><dd>{isolate(fact)}</dd></div>\n"
        for name, fact in facts.items()
    )
    return f'<dl class="facts">\n{parts}</dl>' if parts else ""


def show_table(
    titles: Sequence[str],
    left: Sequence[bool],
    groups: Iterable[Iterable[Sequence[str]]],
) -> str:
    """A table.

    Args:
        titles: Above the columns.
        left: Whether each column is aligned left, as text is.
        groups: Its lines, as they stand together.
    """

    def show_line(tag: str, cells: Sequence[str]) -> str:
        kinds = ("" if plain else ' class="number"' for plain in left)
        line = "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{line}</tr>\n"

    bodies = "".join(
        f"<tbody>\n{''.join(show_line('td', cells) for cells in group)}</tbody>\n"
        for group in groups
    )
    head = f"<thead>\n{show_line('th', titles)}</thead>\n"
    return f'<div class="scroll"><table>\n{head}{bodies}</table></div>'


def show_slider(before: Shot, after: Shot, natural: tuple[int, int]) -> str:
    """Two pictures of one size in one frame, divided by a handle that moves.

    Args:
        before: Seen left of the handle.
        after: Seen right of it.
        natural: Height and width that the pictures have where they are not reduced.
    """
    height, width, channels = after.pixels.shape
    times = max(1, _SMALLEST_SLIDER // max(height, width))
    images = (
        _show_image(
            embed_view(shot.pixels, shot.icc),
            (height * times, width * times),
            shot.label,
            kind,
        )
        for shot, kind in ((before, "before"), (after, "after"))
    )
    kinds = ["frame"] + ["pixelated"] * (times > 1)
    kinds += ["checkered"] * (channels in (2, 4))
    label = f"Share of the picture, from the left, that shows {before.label}"
    reduced = "" if natural == (height, width) else (
        f"Reduced to {width} &times; {height}"
        f" of {natural[1]} &times; {natural[0]} pixels. "
    )  # fmt: skip
    return f"""<figure class="slider">
<div class="sides">
<span>{isolate(before.label)}</span>
<span>{isolate(after.label)}</span>
</div>
<div class="{" ".join(kinds)}">
{"".join(images)}<input type="range" min="0" max="100" aria-label="{escape(label)}">
<div class="handle"></div>
</div>
<figcaption>{reduced}<span class="shown" data-width="{natural[1]}" hidden></span>
</figcaption>
</figure>"""


def show_crop(shots: Iterable[Shot], caption: str) -> str:
    """A part of several pictures, side by side, pixel by pixel.

    Args:
        shots: Whose, all of one size.
        caption: HTML.
    """
    parts = "".join(_show_shot(shot) for shot in shots)
    return f"""<figure class="crop">
<div class="shots">
{parts}</div>
<figcaption>{caption}</figcaption>
</figure>"""


def show_crops(crops: Iterable[str]) -> str:
    """Crops, as many in a row as there is room for."""
    parts = "".join(f"{crop}\n" for crop in crops)
    return f'<div class="crops">\n{parts}</div>'


def _show_shot(shot: Shot) -> str:
    height, width, channels = shot.pixels.shape
    address = embed_exact(shot.pixels, shot.icc)
    image = _show_image(address, (height, width), shot.label)
    kind = "shot checkered" if channels in (2, 4) else "shot"
    note = f" <span>{escape(shot.note)}</span>" if shot.note else ""
    caption = f"<figcaption>{isolate(shot.label)}{note}</figcaption>"
    return f'<figure class="{kind}">\n{image}{caption}</figure>\n'


def _show_image(address: str, size: tuple[int, int], label: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return (
        f'<img{named} src="{address}" width="{size[1]}" height="{size[0]}"'
        f' alt="{escape(label)}" draggable="false">\n'
    )
