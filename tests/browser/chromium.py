"""Finding and starting Chromium; nothing here downloads one."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

MISSING = "no chromium and chromedriver; apt install chromium chromium-driver"
FLAGS = (
    *("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--hide-scrollbars"),
)
PAGE_SECONDS = 60


class NoBrowser(Exception):  # noqa: N818 - a machine without one is as good as any
    """There is none; the message says what to install."""


def find(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The paths of Chromium, which ``TEST_BROWSER`` may name, and of its driver.

    Raises:
        NoBrowser: one of them is missing.
    """
    path = environ.get("PATH", os.defpath)
    chromium = shutil.which(environ.get("TEST_BROWSER") or "chromium", path=path)
    if chromium is None:
        raise NoBrowser(MISSING)
    beside = str(Path(chromium).resolve().parent)
    driver = shutil.which("chromedriver", path=os.pathsep.join((beside, path)))
    if driver is None:
        raise NoBrowser(MISSING)
    return chromium, driver


@contextmanager
def started(*more: str) -> Iterator[Chrome]:
    """A browser that knows nothing yet, with more flags; ended with the block."""
    chromium, driver = find()
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        options = ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        flags = (*FLAGS, *more, f"--user-data-dir={folder}/profile")
        for flag in flags if os.getuid() else (*flags, "--no-sandbox"):
            options.add_argument(flag)
        service = Service(executable_path=driver, env={**os.environ, "TMPDIR": folder})
        browser = Chrome(options, service)
        try:
            browser.set_page_load_timeout(PAGE_SECONDS)
            yield browser
        finally:
            browser.quit()
