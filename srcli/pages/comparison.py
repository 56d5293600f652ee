"""The page that shows an enlarged picture beside bicubic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from srcli.imaging.box import Box
from srcli.imaging.picture import Picture
from srcli.pages.html import (
    Shot,
    isolate,
    show_crop,
    show_crops,
    show_facts,
    show_slider,
    write_page,
)
from srcli.pages.view import View, view_pair
from srcli.pages.windows import find_differences
from srcli.storage import Place

LONGEST = 2000  # pixels of the slider's longer side
_CROPS = 6
_SIDES = (64, 280)  # pixels of a crop, at least (where there are so many) and at most
_BICUBIC = "Bicubic"


def write_comparison(
    source: Picture,
    result: Picture,
    path: Place,
    *,
    title: str,
    facts: Mapping[str, str],
) -> None:
    """Write a page with bicubic and an enlarged picture: a slider, and crops at 1:1.

    The page is one file that needs no network. Of the pictures' metadata it has the
    colour profile alone. Beside the pictures it takes some 100 MB of memory at most,
    and for a source with transparency some 16 bytes for each of its pixels more.

    Args:
        source: What was enlarged, of any size and kind.
        result: What it became, of any size.
        path: Where; replaced if it is there.
        title: What the page calls the picture; any text.
        facts: Names and values to show, such as the scale. The one called "Model", in
            any case, is also what the page calls `result`.

    Raises:
        OutputError: If the file cannot be written.
    """
    before, after = view_pair(source, result)
    name = next((facts[fact] for fact in facts if fact.lower() == "model"), "srcli")
    write_page(path, f"{title} - srcli", _list_parts(before, after, name, title, facts))


def _list_parts(
    before: View, after: View, name: str, title: str, facts: Mapping[str, str]
) -> Iterator[str]:
    """The body of the page."""
    yield f"<h1>{isolate(title)}</h1>"
    yield show_facts(facts)
    yield show_slider(*_show_whole(before, after, name), natural=after.size)
    yield "<h2>Pixel by pixel</h2>"
    yield (
        "<p>Where the two differ most. One pixel of the picture is one of the page,"
        " and nothing is lost.</p>"
    )
    windows = find_differences(before, after, _choose_side(after.size), _CROPS)
    yield show_crops(_show_window(before, after, name, window) for window in windows)


def _show_whole(before: View, after: View, name: str) -> tuple[Shot, Shot]:
    """Both pictures, reduced where they are large."""
    longest = max(after.size)
    height, width = (
        max(1, round(side * min(1.0, LONGEST / longest))) for side in after.size
    )
    return (
        Shot(_BICUBIC, before.whole((height, width)), before.icc),
        Shot(name, after.whole((height, width)), after.icc),
    )


def _show_window(before: View, after: View, name: str, window: Box) -> str:
    """Both pictures' pixels in a window."""
    shots = (
        Shot(_BICUBIC, before.part(*window.slices), before.icc),
        Shot(name, after.part(*window.slices), after.icc),
    )
    place = f"{window.width} &times; {window.height} pixels"
    return show_crop(shots, f"{place} at x {window.left}, y {window.top}")


def _choose_side(size: tuple[int, int]) -> int:
    """The side of crops of a picture, such that some fit beside each other."""
    smallest, largest = _SIDES
    return min(largest, max(smallest, 2 * min(size) // 7))
