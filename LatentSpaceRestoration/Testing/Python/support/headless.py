"""A real browser without a window, for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by selenium; skips the test where one of them is missing.

    Nothing is fetched: selenium would download a driver if it were not told of one.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs the programs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (
        *("headless=new", "no-sandbox", "disable-dev-shm-usage"),
        # WebGL without a graphics card.
        *("use-angle=swiftshader", "enable-unsafe-swiftshader", "ignore-gpu-blocklist"),
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        window.set_window_size(1280, 900)
        yield window
    finally:
        window.quit()


def opened(window: Any, page: Path, scheme: str = "light") -> Any:
    """Open a page of a file, and make sure that it complained of nothing."""
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    window.get(page.as_uri())
    said = complaints(window)
    assert not said, said
    return window


def live(window: Any, page: Path) -> Any:
    """Open the page of a scan, and wait until its viewer runs or has given up."""
    from selenium.webdriver.support.ui import WebDriverWait

    opened(window, page)
    over = "return document.body.matches('.live') || !document.getElementById('noviewer').hidden"
    WebDriverWait(window, 60).until(lambda w: w.execute_script(over))
    said = complaints(window)
    assert not said, said
    return window


def complaints(window: Any) -> list[str]:
    """What the console was told since it was last asked."""
    return [entry["message"] for entry in window.get_log("browser")]
