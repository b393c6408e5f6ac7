"""Finding the browser, and the message without one."""

import pytest

from tests.browser.chromium import MISSING, NoBrowser, find


@pytest.fixture
def folder(tmp_path):
    """Makes programs that do nothing."""

    def folder(name, *programs):
        for program in programs:
            path = tmp_path / name / program
            path.parent.mkdir(exist_ok=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)
        return str(tmp_path / name)

    return folder


@pytest.mark.quick
def test_both_are_found_on_the_path(folder):
    path = folder("bin", "chromium", "chromedriver")
    assert find({"PATH": path}) == (f"{path}/chromium", f"{path}/chromedriver")


def test_the_driver_beside_a_named_browser_is_used(folder):
    """The driver beside the browser of TEST_BROWSER is used, or else the one on the PATH."""
    path = folder("bin", "chromium", "chromedriver")
    other = folder("other", "chrome", "chromedriver")
    environ = {"PATH": path, "TEST_BROWSER": f"{other}/chrome"}
    assert find(environ) == (f"{other}/chrome", f"{other}/chromedriver")
    alone = folder("alone", "chrome")
    environ["TEST_BROWSER"] = f"{alone}/chrome"
    assert find(environ) == (f"{alone}/chrome", f"{path}/chromedriver")


@pytest.mark.parametrize(
    ("programs", "named"), [((), ""), (("chromium",), ""), (("chromium", "chromedriver"), "gone")]
)
def test_what_is_missing_is_said(folder, programs, named):
    with pytest.raises(NoBrowser, match="apt install chromium chromium-driver") as missing:
        find({"PATH": folder("bin", *programs), "TEST_BROWSER": named})
    assert str(missing.value) == MISSING
