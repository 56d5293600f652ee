"""Pages in a real browser: they work, alone, with mouse, finger and keyboard."""

from __future__ import annotations

import numpy as np
import pytest

from srcli.imaging.files import Picture
from srcli.pages.comparison import write_comparison
from srcli.pages.html import Shot, show_crop, show_table, write_page

RED, BLUE = (200, 30, 0), (0, 40, 190)
WIDTH, HEIGHT = 400, 300


@pytest.fixture
def show(browser, tmp_path):
    """A function that opens the page of two pictures."""

    def open_page(source, result, model="mrnet", **options):
        path = tmp_path / "a 'page' #1.html"
        facts = {"Model": model, "Scale": "x4"}
        write_comparison(source, result, path, title="photo.png", facts=facts)
        browser.open(path, **options)
        return path

    return open_page


@pytest.fixture
def slider(browser, show):
    """The frame of a slider that shows red for bicubic and blue for ours."""
    source = np.full((HEIGHT // 4, WIDTH // 4, 3), RED, np.uint8)
    result = np.full((HEIGHT, WIDTH, 3), BLUE, np.uint8)
    show(Picture(source), Picture(result))
    (frame,) = browser.find(".frame")
    return frame


def find_border(browser, frame):
    """Where red ends; everything else is blue but for the handle."""
    line = browser.look(frame)[20]
    assert line.shape == (WIDTH, 3)
    red, blue = ((line == colour).all(axis=1) for colour in (RED, BLUE))
    border = int(red.sum())
    assert red[:border].all()
    assert blue[border:].sum() >= WIDTH - border - 5
    return border


def test_handle_begins_in_the_middle(browser, slider):
    assert find_border(browser, slider) == pytest.approx(WIDTH / 2, abs=4)
    assert [side.text for side in browser.find(".sides span")] == ["Bicubic", "mrnet"]
    (shown,) = browser.find(".shown")
    assert not shown.is_displayed()  # the picture is not reduced


def test_keys_move_the_handle(browser, slider):
    from selenium.webdriver.common.keys import Keys

    browser.press(Keys.TAB, *[Keys.ARROW_LEFT] * 10)
    assert find_border(browser, slider) == pytest.approx(0.4 * WIDTH, abs=4)
    browser.press(*[Keys.ARROW_RIGHT] * 30)
    assert find_border(browser, slider) == pytest.approx(0.7 * WIDTH, abs=4)
    browser.press(Keys.HOME)
    assert find_border(browser, slider) == 0
    browser.press(Keys.END)
    assert find_border(browser, slider) == pytest.approx(WIDTH, abs=4)
    (control,) = browser.find(".frame input")
    assert control.accessible_name.endswith("shows Bicubic")
    assert control.aria_role == "slider"


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_pointers_move_the_handle_from_anywhere(browser, slider, kind):
    from selenium.webdriver.common.keys import Keys

    for start, end in ((200, 90), (10, 333)):
        browser.drag(slider, start, end, kind)
        assert find_border(browser, slider) == pytest.approx(end, abs=4)
    browser.press(Keys.ARROW_RIGHT)  # goes on from there
    assert find_border(browser, slider) == pytest.approx(333 + 4, abs=5)


def test_nothing_shines_through_a_transparent_picture(browser, show):
    red = np.full((HEIGHT // 4, WIDTH // 4, 3), RED, np.uint8)
    opaque = np.full(red.shape[:2], 255, np.uint8)
    result = np.full((HEIGHT, WIDTH, 3), BLUE, np.uint8)
    show(Picture(red, opaque), Picture(result, np.zeros((HEIGHT, WIDTH), np.uint8)))
    (frame,) = browser.find(".frame")
    seen = browser.look(frame)[:100]
    assert (seen[:, :190] == RED).all()
    right = seen[:, 210:].reshape(-1, 3)
    assert {tuple(colour) for colour in right} == {(204,) * 3, (255,) * 3}


def test_page_asks_for_nothing_and_shows_crops_pixel_by_pixel(browser, show, picture):
    pixels = picture(240, 320)
    path = show(Picture(picture(60, 80)), Picture(pixels))
    assert browser.requests == [path.as_uri()]
    assert browser.complaints == []
    images = browser.find(".shot img")
    assert len(images) >= 6
    assert browser.ask("devicePixelRatio") == 1
    for image in images:
        box = browser.ask("arguments[0].getBoundingClientRect().toJSON()", image)
        natural = [browser.ask(f"arguments[0].natural{side}", image)
                   for side in ("Width", "Height")]  # fmt: skip
        assert [box["width"], box["height"]] == natural
    caption = browser.find(".crop > figcaption")[0].text.replace(",", "").split()
    left, top = int(caption[-3]), int(caption[-1])
    seen = browser.look(images[1])
    height, width, _ = seen.shape
    assert np.array_equal(seen, pixels[top : top + height, left : left + width])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(browser, show, picture, scheme):
    show(Picture(picture(60, 80)), Picture(picture(240, 320)), scheme=scheme)
    style = "getComputedStyle(document.body)"
    channels = [
        sum(map(int, browser.ask(f"{style}.{name}")[4:-1].split(",")))
        for name in ("color", "backgroundColor")
    ]
    assert (channels[0] > channels[1]) == (scheme == "dark")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, show, picture):
    source, result = (Picture(picture(*size)) for size in ((120, 200), (480, 800)))
    show(source, result, "name_without_a_place_to_break" * 3, width=360, height=740)
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    (frame,) = browser.find(".frame")
    assert frame.rect["width"] < 360
    assert frame.rect["width"] / frame.rect["height"] == pytest.approx(800 / 480, 0.01)
    (shown,) = browser.find(".shown")
    assert shown.text == f"Shown at {round(frame.rect['width'] / 8)} % of its size."


def test_tables_and_crops_of_any_length_fit_a_phone(browser, tmp_path, picture):
    path = tmp_path / "page.html"
    titles = [f"Column {number}" for number in range(12)]
    shots = [Shot("a" * 90, picture(128, 128)) for _ in range(3)]
    table = show_table(titles, [True] * 12, [[titles]])
    write_page(path, "page", [table, show_crop(shots, "b" * 90)])
    browser.open(path, width=360)
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    assert browser.complaints == []
