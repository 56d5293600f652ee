"""The page that shows an enlarged picture beside bicubic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    model = next((facts[fact] for fact in facts if fact.lower() == "model"), "srcli")
    parts = _list_parts(before, after, model, title, facts)
    write_page(path, f"{title} - srcli", parts)


def _list_parts(
    before: View, after: View, model: str, title: str, facts: Mapping[str, str]
) -> Iterator[str]:
    """The body of the page."""
    pair = (("Bicubic", before), (model, after))
    share = min(1.0, LONGEST / max(after.size))
    height, width = (max(1, round(side * share)) for side in after.size)
    whole_before, whole_after = (
        Shot(label, view.whole((height, width)), view.icc) for label, view in pair
    )
    yield f"<h1>{isolate(title)}</h1>"
    yield show_facts(facts)
    yield show_slider(whole_before, whole_after, after.size)
    yield "<h2>Pixel by pixel</h2>"
    yield (
        "<p>Where the two differ most. One pixel of the picture is one of the page,"
        " and nothing is lost.</p>"
    )
    smallest, largest = _SIDES
    side = min(largest, max(smallest, 2 * min(after.size) // 7))  # three in a row
    crops = []
    for window in find_differences(before, after, side, _CROPS):
        parts = [
            Shot(label, view.part(*window.slices), view.icc) for label, view in pair
        ]
        place = f"{window.width} &times; {window.height} pixels"
        crops.append(show_crop(parts, f"{place} at x {window.left}, y {window.top}"))
    yield show_crops(crops)
