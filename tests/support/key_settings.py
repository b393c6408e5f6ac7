"""Helpers shared by the tests of the settings of keys."""

import re

import pytest

from app.config.settings import Settings
from app.errors import SettingsError
from tests.support.settings import KEY

MODES = {
    "development": {"DATABASE_URL": "sqlite:////nowhere/analytics.db"},
    "production": {
        "DATABASE_URL": "postgresql://db.example/analytics",
        "JWT_ISSUER": "https://idp.example",
        "JWT_AUDIENCE": "analytics",
    },
}
every_mode = pytest.mark.parametrize("mode", MODES)


def settings(mode, **variables):
    return Settings.from_environ({"APP_ENV": mode, "SECRET_KEY": KEY} | MODES[mode] | variables)


def refusal(mode, **variables):
    with pytest.raises(SettingsError) as refused:
        settings(mode, **variables)
    return str(refused.value)


def names(message):
    """The variables that a message names."""
    return set(re.findall(r"\bJWT_\w+", message))


def write(folder, text):
    """The path of a file with a key."""
    path = folder / "key.pem"
    path.write_text(text)
    return str(path)
