"""The documents that are generated from the declared settings."""

import re

from app.config import document
from app.config.declaration import variables
from app.config.settings import Settings
from tests.support.deploy_files import assignments

NAMES = [one.name for one in variables(Settings).values()]


def test_the_table_is_up_to_date() -> None:
    """docs/settings.md is what ``make settings-docs`` writes, one row for each variable."""
    text = document.PAGE.read_text()
    assert document.page(text) == text
    assert re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE) == NAMES


def test_the_example_is_up_to_date() -> None:
    """The example is what ``make settings-docs`` writes, with every variable but a few."""
    text = document.EXAMPLE.read_text()
    assert document.example(text) == text
    left_out = {"HOST", "PORT", "ALLOW_SQLITE", "FLASK_DEBUG"}
    assert assignments(text).keys() == set(NAMES) - left_out | {"PGPASSWORD"}


def test_a_changed_document_would_be_noticed() -> None:
    """A row that somebody edits by hand, or removes, does not survive."""
    page, example = document.PAGE.read_text(), document.EXAMPLE.read_text()
    assert document.page(page.replace("| `3000` |", "| `80` |")) == page
    assert document.page(re.sub(r"\| `PORT`.*\n", "", page)) == page
    assert document.example(example.replace("#WEB_THREADS=4\n", "")) == example


def test_a_default_is_a_valid_value() -> None:
    """Every fixed default passes its own parser, in production as well."""
    for one in variables(Settings).values():
        one.read({}, production=False)
        one.read({}, production=True)
