"""Settings of webhooks and e-mail, and the former values of SECRET_KEY."""

import pytest

from app.config.parsing import SmtpServer
from app.errors import SettingsError
from tests.support.settings import make_settings

FROM = {"SMTP_FROM": "analytics@example.com"}


def settings_of(**variables):
    return make_settings("sqlite:///x.db", **variables)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", SmtpServer("mail.example.com", 587, "starttls")),
        (
            "smtp://us%40er:p%3Aw@mail.example.com:2525",
            SmtpServer("mail.example.com", 2525, "starttls", "us@er", "p:w"),
        ),
        ("smtps://u:p9x@mail.example.com/", SmtpServer("mail.example.com", 465, "tls", "u", "p9x")),
        ("smtp://127.0.0.1?starttls=0", SmtpServer("127.0.0.1", 25, "none")),
    ],
)
def test_an_smtp_server_is_read(url, server):
    settings = settings_of(SMTP_URL=url, **FROM)
    assert settings.smtp_url == server
    assert server.password is None or server.password not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        *("mail.example.com", "http://mail.example.com", "smtp://", "smtp://h/path", "smtp://h:x"),
        *("smtp://user@h", "smtp://u:p@h?starttls=0", "smtps://h?starttls=0", "smtp://h?x=1"),
        "smtp://h#x",
    ],
)
def test_an_invalid_smtp_server_is_refused_without_its_text(url):
    with pytest.raises(SettingsError, match="SMTP_URL") as refused:
        settings_of(SMTP_URL=url, **FROM)
    assert url.removeprefix("smtp://") in {"", "h"} or url not in str(refused.value)


def test_a_server_needs_a_sender():
    with pytest.raises(SettingsError, match="SMTP_FROM"):
        settings_of(SMTP_URL="smtp://h")
    with pytest.raises(SettingsError, match="SMTP_FROM"):
        settings_of(SMTP_URL="smtp://h", SMTP_FROM="A <a@example.com>")


def test_networks_are_read():
    allowed = settings_of(WEBHOOK_ALLOW="10.1.0.0/16, fd00::/8").webhook_allow
    assert [str(one) for one in allowed] == ["10.1.0.0/16", "fd00::/8"]
    assert settings_of().webhook_allow == ()
    for text in ("10.1.0.1/16", "localhost", "10.0.0.0/33"):
        with pytest.raises(SettingsError, match="WEBHOOK_ALLOW"):
            settings_of(WEBHOOK_ALLOW=text)


def test_former_keys_are_read():
    settings = settings_of(SECRET_KEY_FALLBACKS=f"{'a' * 32},{'b' * 32}")
    assert settings.secret_key_fallbacks == ("a" * 32, "b" * 32)
    assert "a" * 32 not in repr(settings)
    for text in ("short", f"{'a' * 32},"):
        with pytest.raises(SettingsError, match="SECRET_KEY_FALLBACKS"):
            settings_of(SECRET_KEY_FALLBACKS=text)
