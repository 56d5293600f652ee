"""Pages in a real browser: they work, alone, with mouse, finger and keyboard."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from srcli.imaging.files import Picture
from srcli.pages.comparison import write_comparison
from srcli.pages.html import Shot, show_crop, show_table, write_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RED, BLUE = (200, 30, 0), (0, 40, 190)
WIDTH, HEIGHT = 400, 300


class Browser:
    """Headless Chromium at one device pixel for each CSS pixel."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=1000, height=900, scheme="light"):
        """Show a page; nothing of the one before is left in the logs."""
        call = self.driver.execute_cdp_cmd
        metrics = {"width": width, "height": height, "mobile": False}
        call("Emulation.setDeviceMetricsOverride", {"deviceScaleFactor": 1, **metrics})
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        call("Emulation.setEmulatedMedia", {"features": media})
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.as_uri())

    def ask(self, script, *arguments):
        """What a script returns."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def find(self, selector):
        """Every element that a CSS selector names."""
        return self.driver.find_elements("css selector", selector)

    def look(self, element):
        """The element's pixels on the screen, (H, W, 3)."""
        shot = Image.open(io.BytesIO(element.screenshot_as_png))
        return np.asarray(shot.convert("RGB"))

    def press(self, *keys):
        """Type into whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def drag(self, element, start, end, kind):
        """Pull a finger or a mouse over an element, from one x to another."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        left = element.rect["width"] / 2
        chain = ActionChains(self.driver, 0, [PointerInput(kind, kind)])
        chain.move_to_element_with_offset(element, round(start - left), 0)
        chain.click_and_hold()
        chain.move_to_element_with_offset(element, round(end - left), 0)
        chain.release().perform()

    @property
    def complaints(self):
        """What the console says."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self):
        """Every address that was asked for, but those that hold what they name."""
        logged = self.driver.get_log("performance")
        events = [json.loads(entry["message"])["message"] for entry in logged]
        asked = (
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        )
        return [address for address in asked if not address.startswith("data:")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A `Browser`; tests are skipped where Chromium or its driver is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.common.exceptions import SessionNotCreatedException

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("browser")
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
        "hide-scrollbars", "no-first-run", "disable-background-networking",
        "force-color-profile=srgb", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        patch.setenv("no_proxy", "localhost,127.0.0.1")
        service = webdriver.ChromeService(executable_path=driver)
        try:
            session = webdriver.Chrome(options=options, service=service)
        except SessionNotCreatedException as error:  # a driver of another version, say
            pytest.skip(f"{program} cannot be driven: {error.msg}")
        with session:
            yield Browser(session)


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


def test_keys_move_the_handle_from_the_middle(browser, slider):
    from selenium.webdriver.common.keys import Keys

    assert find_border(browser, slider) == pytest.approx(WIDTH / 2, abs=4)
    assert [side.text for side in browser.find(".sides span")] == ["Bicubic", "mrnet"]
    (shown,) = browser.find(".shown")
    assert not shown.is_displayed()  # the picture is not reduced
    for keys, share in (
        ([Keys.TAB, *[Keys.ARROW_LEFT] * 10], 0.4),
        ([Keys.ARROW_RIGHT] * 30, 0.7),
        ([Keys.HOME], 0),
        ([Keys.END], 1),
    ):
        browser.press(*keys)
        assert find_border(browser, slider) == pytest.approx(share * WIDTH, abs=4)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_asks_for_nothing_and_shows_crops_pixel_by_pixel(
    browser, show, picture, scheme
):
    pixels = picture(240, 320)
    path = show(Picture(picture(60, 80)), Picture(pixels), scheme=scheme)
    assert browser.requests == [path.as_uri()]
    assert browser.complaints == []
    images = browser.find(".shot img")
    assert len(images) >= 6
    for image in images:
        box = browser.ask("arguments[0].getBoundingClientRect().toJSON()", image)
        for side in ("Width", "Height"):
            natural = browser.ask(f"arguments[0].natural{side}", image)
            assert box[side.lower()] == natural
    caption = browser.find(".crop > figcaption")[0].text.replace(",", "").split()
    left, top = int(caption[-3]), int(caption[-1])
    seen = browser.look(images[1])
    height, width, _ = seen.shape
    assert np.array_equal(seen, pixels[top : top + height, left : left + width])
    colours = [  # of the text and of what is behind it
        browser.ask(f"getComputedStyle(document.body).{name}")[4:-1].split(",")
        for name in ("color", "backgroundColor")
    ]
    text, ground = (sum(map(int, channels)) for channels in colours)
    assert (text > ground) == (scheme == "dark")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    browser, show, picture, tmp_path
):
    source, result = (Picture(picture(*size)) for size in ((120, 200), (480, 800)))
    show(source, result, "name_without_a_place_to_break" * 3, width=360, height=740)
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    (frame,) = browser.find(".frame")
    assert frame.rect["width"] < 360
    assert frame.rect["width"] / frame.rect["height"] == pytest.approx(800 / 480, 0.01)
    (shown,) = browser.find(".shown")
    assert shown.text == f"Shown at {round(frame.rect['width'] / 8)} % of its size."
    # So it is with tables and crops of any length.
    titles = [f"Column {number}" for number in range(12)]
    shots = [Shot("a" * 90, picture(128, 128)) for _ in range(3)]
    table = show_table(titles, [True] * 12, [[titles]])
    write_page(tmp_path / "b.html", "page", [table, show_crop(shots, "b" * 90)])
    browser.open(tmp_path / "b.html", width=360)
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    assert browser.complaints == []
