"""A browser to open pages in, where there is one."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """Headless Chromium at one device pixel for each CSS pixel."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=1000, height=900, scheme="light"):
        """Show a page; nothing of the one before is left in the logs."""
        metrics = {"width": width, "height": height, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", deviceScaleFactor=1, **metrics)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=media)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.as_uri())

    def call(self, command, **parameters):
        """Have the browser do something by its own protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

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

    def drag(self, element, start, end, kind="mouse"):
        """Pull a finger or a mouse over an element, from one x to another."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        left = element.rect["width"] / 2
        chain = ActionChains(self.driver, 0, [PointerInput(kind, kind)])
        chain.move_to_element_with_offset(element, round(start - left), 0)
        chain.click_and_hold()
        chain.move_to_element_with_offset(element, round(end - left), 0)
        chain.release()
        chain.perform()

    @property
    def complaints(self):
        """What the console says."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self):
        """Every address that was asked for, but those that hold what they name."""
        events = [
            json.loads(entry["message"])["message"]
            for entry in self.driver.get_log("performance")
        ]
        asked = (
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        )
        return [address for address in asked if not address.startswith("data:")]


@pytest.fixture(scope="session")
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
