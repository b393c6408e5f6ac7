"""A person at the browser: opens pages, reads, types, and looks into the console."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selenium.common.exceptions import (
    ElementNotInteractableException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.serving import Site
from tests.support.pages import DASHBOARD, SIGNIN
from tests.support.settings import TENANT
from tests.support.tokens import token

PATIENCE_SECONDS = 30
WIDE, PHONE = (1280, 900), (360, 740)

T = TypeVar("T")


class Person:
    """At one service, in a browser that forgot whoever was there before."""

    def __init__(self, browser: Chrome, site: Site) -> None:
        self.browser = browser
        self.site = site
        browser.get("about:blank")
        self.cdp("Network.clearBrowserCookies")
        self.cdp("Emulation.setScriptExecutionDisabled", value=False)
        self.prefer()
        self.screen(*WIDE)
        self.console()

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self.browser.execute_cdp_cmd(command, parameters)

    def prefer(self, scheme: str = "light", motion: str = "no-preference") -> None:
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        said = [{"name": name, "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", media="", features=said)

    def screen(self, width: int, height: int, scale: float = 1) -> None:
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def forbid_scripts(self) -> None:
        """JavaScript off, from the next page on."""
        self.cdp("Emulation.setScriptExecutionDisabled", value=True)

    def open(self, path: str) -> None:
        self.browser.get(self.site.url + path)
        # On a busy machine, scripts may still see the page before.
        here = "[location.href, document.readyState]"
        self.until(lambda: self.evaluate(here) == [self.browser.current_url, "complete"])

    def sign_in(self, wanted: str = DASHBOARD, organization: str = TENANT, **claims: Any) -> None:
        """Go to a page, and past the door with a token."""
        self.open(wanted)
        self.wait_for(SIGNIN)
        self.paste(token(organization, **claims))
        self.wait_for(wanted)

    def paste(self, text: str) -> None:
        """Put a token into its field at once, as pasting does, and send it."""
        self.cdp("Runtime.evaluate", expression="document.getElementById('token').focus()")
        self.cdp("Input.insertText", text=text)
        self.press("button")

    @property
    def place(self) -> str:
        """Path and query of the page."""
        parts = urlsplit(self.browser.current_url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def wait_for(self, place: str) -> None:
        """Until that page, a path with its query, is there and was read to its end."""
        self.until(
            lambda: self.place == place and self.evaluate("document.readyState") == "complete",
            lambda: f"at {self.place}, not at {place}",
        )

    def until(self, attempt: Callable[[], T], otherwise: Callable[[], str] = lambda: "") -> T:
        """Poll until something is true; ``otherwise`` says what is the case instead."""
        wait = WebDriverWait(self.browser, PATIENCE_SECONDS, poll_frequency=0.05)
        try:
            return wait.until(lambda _browser: attempt())
        except TimeoutException as error:
            raise AssertionError(otherwise()) from error

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What is in elements, seen or not, in one look."""
        script = f"[...document.querySelectorAll({selector!r})].map(one => one.textContent.trim())"
        found: list[str] = self.evaluate(script)
        return found

    def press(self, selector: str) -> None:
        """Click an element, even if a refresh replaces it between the look and the click."""
        self._patiently(selector, WebElement.click)

    def write(self, selector: str, text: str) -> None:
        """Type into an element, even if a refresh replaces it before the first key."""
        self._patiently(selector, lambda element: element.send_keys(text))

    def _patiently(self, selector: str, act: Callable[[WebElement], None]) -> None:
        for _ in range(99):
            with suppress(StaleElementReferenceException, ElementNotInteractableException):
                act(self.one(selector))
                return
        act(self.one(selector))

    def follow(self, selector: str) -> None:
        """Click on what leads to another page, and wait for it."""
        before = self.one("html")
        self.press(selector)
        self.until(lambda: self.one("html") != before)

    def keys(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def point(self, element: WebElement) -> None:
        """Move the mouse there."""
        ActionChains(self.browser, duration=0).move_to_element(element).perform()

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript; works where pages may not have any."""
        answer = self.cdp(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def console(self) -> list[str]:
        """The console's warnings and errors since the last look, violations of the policy too."""
        lines = self.browser.get_log("browser")
        return [line["message"] for line in lines if line["level"] in ("WARNING", "SEVERE")]

    def expect(self, text: str) -> None:
        """Take the one line out of the console that must be there, with ``text`` in it."""
        lines = self.until(self.console)
        assert len(lines) == 1, lines
        assert text in lines[0]
