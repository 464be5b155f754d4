"""Pictures of a report for the README: docs/images/report_{desktop,phone,dark}.png.

    python docs/make_screenshots.py out/report.html

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`) and selenium
(extra `dev`). `make screenshots REPORT=out/report.html` runs it.
"""

import argparse
import base64
import contextlib
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

IMAGES = pathlib.Path(__file__).parent / "images"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
)
# name: width, height, dark, fragment of the address
SHOTS = {
    "report_desktop": (1280, 900, False, ""),
    "report_phone": (390, 844, False, ""),
    "report_dark": (1280, 900, True, ""),
}


def find_browser() -> tuple[str, str] | None:
    """Paths of Chromium and of its driver; None where one is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def open_browser(logs: bool = False) -> Iterator[Any]:
    """A headless Chromium with a profile of its own; quits at the end.

    Args:
        logs: keep the console and all requests, for `driver.get_log`.
    """
    found = find_browser()
    if found is None:
        raise FileNotFoundError("Chromium or chromedriver is missing; see this file's docstring.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = found[0]
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        if logs:
            options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(found[1]))
        try:
            yield driver
        finally:
            driver.quit()


def set_screen(driver: Any, width: int, height: int, dark: bool = False) -> None:
    """Makes the page believe in a screen of that size; a narrow one is a phone's."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})


def main() -> int:
    """Writes the pictures and prints their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=pathlib.Path, help="a page that `optiml report` wrote")
    parser.add_argument("--out", type=pathlib.Path, default=IMAGES, help="default: docs/images")
    arguments = parser.parse_args()
    if not arguments.report.is_file():
        parser.error(f"{arguments.report} does not exist; write it with `optiml report`.")
    if find_browser() is None:
        parser.error(
            "Chromium or chromedriver is missing: apt-get install chromium chromium-driver"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    address = arguments.report.resolve().as_uri()
    with open_browser() as driver:
        for name, (width, height, dark, fragment) in SHOTS.items():
            set_screen(driver, width, height, dark)
            driver.get("about:blank")  # Another fragment alone would not load the page anew.
            driver.get(f"{address}#{fragment}")
            # A long page may load before it is painted.
            driver.execute_async_script(
                "const done = arguments[0];"
                "requestAnimationFrame(() => requestAnimationFrame(() => done()))"
            )
            taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
            path = arguments.out / f"{name}.png"
            path.write_bytes(base64.b64decode(taken["data"]))
            print(f"{path}: {width} x {height}, {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
