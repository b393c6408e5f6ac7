"""The pages' Content-Security-Policy, as the browser takes it."""

import pytest


@pytest.mark.parametrize(
    "markup",
    [
        "<p style='color: red'>",
        "<img src=x onerror=document.title='run'>",
        "<img src=http://127.0.0.2/pixel.png>",
        "<iframe src=/docs>",
    ],
)
def test_injected_markup_is_blocked_and_reported(person, filled, markup):
    """Markup injected into a page has no effect, and the console reports the violated policy."""
    person.sign_in()
    title = person.browser.title
    person.evaluate(f"document.body.insertAdjacentHTML('beforeend', {markup!r})")
    lines = []

    def seen():
        lines.extend(person.console())
        return any("Content Security Policy" in line for line in lines)

    person.until(seen, lambda: str(lines))
    assert person.browser.title == title
    person.open("/dashboard")
    person.console()
