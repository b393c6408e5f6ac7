"""docs/identity-providers/: commands, formats and configurations are those of the code."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from flask import Flask

from app.config.settings import ROOT
from app.intake.formats import FORMATS
from tests.support.command_line import commands

PAGES = sorted((ROOT / "docs" / "identity-providers").glob("*.md"))
BLOCK = re.compile(r"^( *)```([\w-]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# In place of a pattern, or of a path that no test can write.
FILE = "some.log"
# Of the pages about tokens alone, or about all providers.
WITHOUT_FORMAT = {"index", "mapping", "python", "shipping"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without their indent."""
    found = BLOCK.findall(page.read_text())
    return [
        re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
        for indent, name, text in found
        if name == language
    ]


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The words of each ``flask`` command with arguments, in blocks and in the text."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(flask [^`]*--[^`]*)`", BLOCK.sub("", page.read_text()))
    for line in lines:
        words = shlex.split(line, comments=True)
        if "flask" in words:
            given = words[words.index("flask") :]
            yield [FILE if word == "{}" or re.match("/|.*[*]", word) else word for word in given]


def problem(words: list[str], known: dict[str, click.Command]) -> str:
    """Why click refuses a command; empty if it does not."""
    for length in (4, 3):
        name = " ".join(words[:length])
        if name in known:
            try:
                known[name].make_context(name, words[length:])
            except click.UsageError as error:
                return error.format_message()
            return ""
    return "no such command"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with every file that the pages name, since some options need theirs to exist."""
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        for words in shown_commands(page):
            for word in (FILE, *words[3:]):
                if re.fullmatch(r"[\w-]+(\.[\w-]+)+", word):
                    (tmp_path / word).touch()


@pytest.mark.usefixtures("files")
def test_every_shown_command_exists(service: Flask) -> None:
    """Each command of the pages exists, with its options, formats and arguments."""
    known = commands(service)
    shown = [(page.stem, words) for page in PAGES for words in shown_commands(page)]
    assert len(shown) > 20
    wrong = [(page, " ".join(words), problem(words, known)) for page, words in shown]
    assert [one for one in wrong if one[2]] == []


@pytest.mark.usefixtures("files")
def test_a_wrong_command_is_found(service: Flask) -> None:
    """The check of commands tells wrong ones apart."""
    known = commands(service)
    good = "flask events import --format ndjson events.json"
    assert problem(good.split(), known) == ""
    assert problem(["flask", "events", "implode", "events.json"], known) == "no such command"
    assert "no-such" in problem(f"{good} --no-such".split(), known)
    assert "'x'" in problem(["flask", "events", "import", "--format", "x", "events.json"], known)
    assert "FILE" in problem(["flask", "events", "import"], known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_format_in_an_url_exists(page: Path) -> None:
    found = set(re.findall(r"\?format=([\w-]+)", page.read_text())) - {"NAME"}
    assert found <= FORMATS.keys()


def test_every_format_has_its_page() -> None:
    """The index names the format of each page, and each format."""
    index = (PAGES[0].parent / "index.md").read_text()
    rows = re.findall(r"^\| \[.*?\]\(([\w-]+)\.md.*?\| (.*?) \|", index, re.MULTILINE)
    named = {name for _, formats in rows for name in re.findall(r"`([\w-]+)`", formats)}
    assert named == set(FORMATS)
    assert {page for page, _ in rows} == {page.stem for page in PAGES} - WITHOUT_FORMAT | {"python"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_configuration_can_be_parsed(page: Path) -> None:
    """YAML, TOML and Python on the pages have no errors of syntax."""
    for text in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)
    for text in blocks(page, "toml"):
        assert tomllib.loads(text)
    for text in blocks(page, "python"):
        assert ast.parse(text)
