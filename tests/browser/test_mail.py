"""Mail as people see it: legible in light and dark, and never wider than its window."""

import base64

import pytest

from app.alerts.mail import _html
from tests.app.alerts.conftest import HOSTILE, message
from tests.browser.person import PHONE, WIDE

MESSAGES = {"usual": message(), "hostile": message(HOSTILE * 3, name=HOSTILE * 3)}


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["phone", "wide"])
@pytest.mark.parametrize("name", MESSAGES)
def test_a_mail_is_legible(chromium, tmp_path, name, size):
    """In both schemes. Its picture is not of one colour, and it loads nothing."""
    file = tmp_path / "mail.html"
    file.write_text(_html(MESSAGES[name]))
    chromium.set_window_size(*size)
    pictures = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get(file.as_uri())
        script = "return document.documentElement.scrollWidth <= innerWidth"
        assert chromium.execute_script(script)
        shot = chromium.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        pictures[scheme] = base64.b64decode(shot["data"])
        assert len(pictures[scheme]) > 5_000
        colours = chromium.execute_script(
            "const style = getComputedStyle(document.querySelector('div'));"
            "return [style.color, style.backgroundColor]"
        )
        assert colours == ["rgb(31, 41, 55)", "rgb(255, 255, 255)"]
    assert chromium.execute_script("return performance.getEntriesByType('resource').length") == 0
    chromium.get("about:blank")
