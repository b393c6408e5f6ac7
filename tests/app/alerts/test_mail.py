"""E-mail: two forms of one message, safe headers, always the same bytes."""

from email import message_from_bytes
from email.policy import default

import pytest

from app.alerts.mail import mail
from app.config.parsing import ADDRESS
from tests.app.alerts.conftest import HOSTILE, LINK, message


def read(made):
    return message_from_bytes(
        mail(made, "analytics@example.com", "o'ps+a@example.com"), policy=default
    )


def test_both_forms_have_the_same_content(each):
    found = read(each)
    assert found["To"] == "o'ps+a@example.com"
    assert found["From"] == "AgentIdP Analytics <analytics@example.com>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found.get_content_type() == "multipart/alternative"
    plain, html = (found.get_body((kind,)).get_content() for kind in ("plain", "html"))
    for name, _value in each.facts:
        assert name in plain
        assert name in html


def test_the_bytes_are_always_the_same(each):
    made = mail(each, "analytics@example.com", "ops@example.com")
    assert made == mail(each, "analytics@example.com", "ops@example.com")
    assert made.isascii()
    assert max(map(len, made.split(b"\r\n"))) <= 998


def test_a_name_makes_no_header_and_no_markup():
    made = message(HOSTILE, name=HOSTILE)
    found = read(made)
    assert found["Bcc"] is None
    assert found.defects == []
    html = found.get_body(("html",)).get_content()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<a ") == 1
    assert f'href="{LINK}"' in html
    assert "\u202e" not in html


def test_a_subject_is_one_line():
    made = message()
    for title in ("a\r\nBcc: x@example.com", "\u2028a\x00b\x85", "x" * 5000):
        found = read(type(made)(**{**made.__dict__, "title": title}))
        assert found["Bcc"] is None
        assert "\n" not in found["Subject"]
        assert len(found["Subject"]) <= 200


@pytest.mark.parametrize(
    "address",
    [
        *("", "a", "a@", "@b", "a b@example.com", "a@b c", "a@-b.com", "a..b@example.com"),
        *("a@example.com\n", "a@example.com\r\nBcc: x@y", "<a@example.com>", "a,b@example.com"),
        *("a@example.com?subject=x", "a%40b@example.com", '"a"@example.com', "a@b@c", "a@b..c"),
        *("\u00e9@example.com", "a@b\u00fccher.example", "x" * 260 + "@example.com"),
    ],
)
def test_an_unusual_address_is_refused(address):
    assert not ADDRESS.fullmatch(address)
