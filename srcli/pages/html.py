"""A page that is one file: no script, style, font or picture comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

import numpy as np
from numpy.typing import NDArray

from srcli import __version__
from srcli.pages.view import embed
from srcli.storage import Place
from srcli.writing import write_whole

_SMALLEST_SLIDER = 320  # CSS pixels of its longer side; a smaller picture is magnified

# What text may hold, a file's name for example, but no page.
_UNPRINTABLE = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One picture of a slider or a crop.

    Attributes:
        label: Whose picture it is.
        pixels: uint8, (h, w) or (h, w, C): grey, grey and alpha, RGB, RGB and alpha.
        icc: Its colour profile.
        note: Stands below it in a crop, beside the label.
    """

    label: str
    pixels: NDArray[np.uint8]
    icc: bytes | None = None
    note: str = ""

    @property
    def checkered(self) -> str:
        """The class of what lies over a checkerboard, as it is transparent."""
        return " checkered" if self.pixels.shape[2:] in ((2,), (4,)) else ""

    def show(self, times: int = 1, kind: str = "", *, exact: bool = True) -> str:
        """The picture itself, `times` as large, with a CSS class."""
        height, width = self.pixels.shape[:2]
        named = f' class="{kind}"' if kind else ""
        return (
            f'<img{named} src="{embed(self.pixels, self.icc, exact=exact)}"'
            f' width="{width * times}" height="{height * times}"'
            f' alt="{escape(self.label)}" draggable="false">\n'
        )


def write_page(path: Place, title: str, body: Iterable[str]) -> None:
    """Write a page, which appears whole or not at all.

    The title, of the window, is plain text; the body is HTML, part by part.

    Raises:
        OutputError: If it cannot be written.
    """
    page, style, script = (
        files("srcli.pages").joinpath(f"page.{kind}").read_text("utf-8")
        for kind in ("html", "css", "js")
    )
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none';"
        f" style-src {_hash(style)}; script-src {_hash(script)}"
    )
    text = Template(page).substitute(
        policy=policy,
        title=escape(title),
        style=style,
        body="".join(f"{part}\n" for part in body),
        version=__version__,
        script=script,
    )
    with write_whole(path) as part:
        part.write_text(text, "utf-8", newline="\n")


def _hash(text: str) -> str:
    """How a content security policy names just this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def escape(text: str) -> str:
    """`text` for a page, as content or between the quotes of an attribute.

    Lone surrogates, as in file names that are no UTF-8, and control characters become
    U+FFFD.
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", text))


def isolate(text: str) -> str:
    """`text`, escaped, whose writing direction does not reach what is around it."""
    return f"<bdi>{escape(text)}</bdi>"


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
    bodies: Iterable[Iterable[Sequence[str]]],
) -> str:
    """A table of lines that stand together in bodies; `left`: columns aligned left."""

    def show_line(tag: str, cells: Sequence[str]) -> str:
        kinds = ("" if plain else ' class="number"' for plain in left)
        line = "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{line}</tr>\n"

    lines = "".join(
        f"<tbody>\n{''.join(show_line('td', cells) for cells in body)}</tbody>\n"
        for body in bodies
    )
    head = f"<thead>\n{show_line('th', titles)}</thead>\n"
    return f'<div class="scroll"><table>\n{head}{lines}</table></div>'


def show_slider(before: Shot, after: Shot, natural: tuple[int, int]) -> str:
    """Two pictures of one size in one frame, divided by a handle that moves.

    `natural` are their height and width where they are not reduced.
    """
    height, width = after.pixels.shape[:2]
    times = max(1, _SMALLEST_SLIDER // max(height, width))
    kinds = "frame pixelated" if times > 1 else "frame"
    images = "".join(
        shot.show(times, kind, exact=False)
        for shot, kind in ((before, "before"), (after, "after"))
    )
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
<div class="{kinds}{after.checkered}">
{images}<input type="range" min="0" max="100" aria-label="{escape(label)}">
<div class="handle"></div>
</div>
<figcaption>{reduced}<span class="shown" data-width="{natural[1]}" hidden></span>
</figcaption>
</figure>"""


def show_crop(shots: Iterable[Shot], caption: str) -> str:
    """A part of several pictures of one size, side by side; the caption is HTML."""
    parts = []
    for shot in shots:
        note = f" <span>{escape(shot.note)}</span>" if shot.note else ""
        parts.append(
            f'<figure class="shot{shot.checkered}">\n{shot.show()}'
            f"<figcaption>{isolate(shot.label)}{note}</figcaption></figure>\n"
        )
    return f"""<figure class="crop">
<div class="shots">
{"".join(parts)}</div>
<figcaption>{caption}</figcaption>
</figure>"""


def show_crops(crops: Iterable[str]) -> str:
    """Crops, as many in a row as there is room for."""
    parts = "".join(f"{crop}\n" for crop in crops)
    return f'<div class="crops">\n{parts}</div>'
