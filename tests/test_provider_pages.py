"""docs/identity-providers/: commands, formats and configurations are those of the code."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest
import yaml
from flask import Flask

from app.config.settings import ROOT
from app.intake.events import Event
from app.intake.formats import FORMATS, Options, load_mapping, read_batch
from tests.support.command_line import commands
from tests.support.settings import NOW, TENANT

PAGES = sorted((ROOT / "docs" / "identity-providers").glob("*.md"))
BLOCK = re.compile(r"^( *)```([\w-]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# In place of a pattern, or of a path that no test can write.
FILE = "some.log"
# Of the pages about tokens alone, or about all providers.
WITHOUT_FORMAT = {
    *("following", "index", "mapping", "shipping"),
    *("canaille", "django-oauth-toolkit", "glewlwyd", "lemonldap-ng"),
}


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
        if found := re.search(r"\bflask .*", line):
            # `find -exec` puts files between {} and +.
            given = [word for word in shlex.split(found[0], comments=True) if word != "+"]
            yield [FILE if re.match(r"/|.*[*]|FILE|\{\}", word) else word for word in given]


def problem(words: list[str], known: dict[str, click.Command]) -> str:
    """Why a command is refused; empty if it is not."""
    for length in (4, 3):
        name = " ".join(words[:length])
        if name in known:
            try:
                known[name].make_context(name, words[length:])
            except click.UsageError as error:
                return error.format_message()
            formats = {after for word, after in pairwise(words) if word == "--format"}
            return f"no format {formats}" if formats - FORMATS.keys() else ""
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
    assert "no format" in problem(
        ["flask", "events", "import", "--format", "x", "events.json"], known
    )
    assert "FILE" in problem(["flask", "events", "import"], known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_format_in_an_url_exists(page: Path) -> None:
    found = set(re.findall(r"\?format=([\w-]+)", page.read_text())) - {"NAME"}
    assert found <= FORMATS.keys()


def test_every_format_has_its_page() -> None:
    """The index names the format of each page, and each format."""
    index = (PAGES[0].parent / "index.md").read_text()
    table = index.split("### Providers\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (\[.*?) \| (.*?) \|", table, re.MULTILINE)
    named = {name for _, formats in rows for name in re.findall(r"`([\w-]+)`", formats)}
    assert named == set(FORMATS)
    linked = {page for pages, _ in rows for page in re.findall(r"\]\(([\w-]+)\.md", pages)}
    assert linked == {page.stem for page in PAGES} - WITHOUT_FORMAT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_configuration_can_be_parsed(page: Path) -> None:
    """YAML, TOML and Python on the pages have no errors of syntax."""
    for text in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)
    for text in blocks(page, "toml"):
        assert tomllib.loads(text)
    for text in blocks(page, "python"):
        assert ast.parse(text)


def test_the_mapping_for_ping_reads_the_line_above_it(tmp_path: Path) -> None:
    page = PAGES[0].parent / "ping.md"
    (line,), (mapping,) = blocks(page, "text"), blocks(page, "toml")
    file = tmp_path / "ping.toml"
    file.write_text(mapping)
    options = Options(TENANT, 65536, zone=ZoneInfo("Europe/Berlin"))
    batch = read_batch(load_mapping(file), iter([line.encode()]), options, NOW + timedelta(365))
    (event,) = batch.events
    assert event.agent_id == "billing-sync"
    assert event.issued_at == datetime(2026, 11, 10, 12, 24, 58, 720_000, tzinfo=UTC)
    assert batch.rejected == 0


def test_the_listener_writes_what_its_format_reads() -> None:
    """The record has every member that the script on the page names, and only a hash of the jti."""
    (script,) = [
        one for one in blocks(PAGES[0].parent / "node-oidc-provider.md", "js") if "grant." in one
    ]
    members = re.findall(r"^    (\w+): (.*),$", script, re.MULTILINE)
    assert dict(members)["jti"] == 'createHash("sha256").update(token.jti).digest("hex")'
    values = {
        "event": "grant.success",
        "at": "2026-04-01T09:00:00.000Z",
        "clientId": "agent-1",
        "organizationId": "org-1",
        "jti": "0" * 64,
    }
    assert [name for name, _ in members] == list(values)
    line = json.dumps(values).encode()
    batch = read_batch(FORMATS["node-oidc-provider"], iter([line]), Options(None, 65536), NOW)
    moment = datetime(2026, 4, 1, 9, tzinfo=UTC)
    assert batch.events == [Event("org-1", "0" * 64, "agent-1", moment)]
