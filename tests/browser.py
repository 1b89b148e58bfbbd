"""Headless Chromium for tests of pages: opens a file at a given size and colour scheme, and tells what went wrong there."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

PHONE, DESKTOP = 375, 1400
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Browser:
    """One page at a time. ``driver`` is selenium's, for elements, keys and clicks."""

    def __init__(self, driver: Chrome):
        self.driver = driver

    def open(self, page: Path, width: int = DESKTOP, dark: bool = False, height: int = 900) -> None:
        """Load a file and wait for its scripts; what is said by :meth:`errors` and :meth:`requests` starts anew."""
        self.errors(), self.requests()
        phone = width < 700
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        self.colours(dark)
        self.driver.get(page.resolve().as_uri())

    def colours(self, dark: bool) -> None:
        """What the reader's system prefers, also while the page is open."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def run(self, script: str) -> object:
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script}")

    def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true: what follows a mouse or a change of colours comes a frame later."""
        WebDriverWait(self.driver, 10, poll_frequency=0.05).until(lambda _: self.run(script), f"never true: {script}")

    def errors(self) -> list[str]:
        """Messages on the console since the last call: exceptions, and what the page's policy has refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses outside of the page that were asked for since the last call; ``chrome:`` is the browser's start page."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        addresses = [params["request"]["url"] for params in asked]
        return [address for address in addresses if not address.startswith(("file:", "data:", "blob:", "chrome:"))]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def screenshot(self, file: Path) -> None:
        """A PNG of the whole page, at most 16,000 pixels of it; the window is as high from then on."""
        width, height = self.run("[innerWidth, document.documentElement.scrollHeight]")
        size = {"width": width, "height": min(height, 16000), "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.save_screenshot(str(file))


@contextmanager
def headless() -> Iterator[Browser]:
    """A browser with a profile of its own; the test is skipped where Chromium or its driver is missing."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if not chromium or not service:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=Service(service))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
