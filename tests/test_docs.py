"""The documents name every command, route, variable and dependency, and their links lead on."""

import ast
import configparser
import re
from pathlib import Path

import pytest
from flask import Flask

from app.config.settings import ROOT
from app.web.api.openapi import path_of
from tests.support.command_line import commands

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def documents() -> str:
    """README and docs as one text, with every run of white space as one space."""
    files = [ROOT / "README.md", *PAGES]
    return " ".join(" ".join(file.read_text() for file in files).split())


def variables(source: Path) -> set[str]:
    """The names of environment variables among the strings of a module."""
    strings = (
        node.value
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in strings if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", text)}


def missing(names: set[str], documents: str) -> list[str]:
    """Names that stand nowhere as a whole."""
    return sorted(
        name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", documents)
    )


def test_every_command_is_documented(service: Flask, documents: str) -> None:
    known = set(commands(service))
    assert {name.split()[1] for name in known} >= {"db", "events", "rollup", "tokens", "demo"}
    assert missing(known, documents) == []


def test_every_route_is_documented(service: Flask, documents: str) -> None:
    rules = [rule for rule in service.url_map.iter_rules() if rule.endpoint != "static"]
    routes = {path_of(rule.rule) for rule in rules}
    assert {
        "/api/v1/events",
        "/api/v1/agents/{agentId}",
        "/api/v1/analytics/tokens",
        "/health",
    } <= routes
    assert missing(routes, documents) == []


def test_every_variable_is_documented(documents: str) -> None:
    read = variables(ROOT / "app/config/settings.py") | variables(ROOT / "app/config/parsing.py")
    assert {"APP_ENV", "DATABASE_URL", "PORT", "JWT_SECRET_KEY", "EVENT_RETENTION_DAYS"} <= read
    assert missing(read, documents) == []


def test_every_dependency_has_its_purpose_on_the_page() -> None:
    """docs/dependencies.md lists each direct dependency of setup.cfg, extras included."""
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    names = set(re.findall(r"^([a-z][a-z0-9-]*)", "\n".join(lines), re.MULTILINE))
    assert {"flask", "sqlalchemy", "pytest", "opentelemetry-sdk"} <= names
    rows = re.findall(r"^\| (.*?) \|", (DOCS / "dependencies.md").read_text(), re.MULTILINE)
    assert missing(names, " ".join(rows)) == []


def test_the_index_lists_every_page() -> None:
    """docs/index.md links each page of docs/ and docs/operate/, and each folder's own index."""
    index = DOCS / "index.md"
    linked = {(DOCS / path).resolve() for path, _ in links(index)}
    pages = {*DOCS.glob("*.md"), *(DOCS / "operate").glob("*"), *DOCS.glob("*/index.md")}
    assert pages - linked - {index} == set()
    for folder in DOCS.glob("*/index.md"):
        listed = {(folder.parent / path).resolve() for path, _ in links(folder)}
        assert set(folder.parent.glob("*.md")) - listed == {folder}


@pytest.mark.parametrize(
    "page",
    [*sorted(ROOT.glob("*.md")), *PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    """A relative link names a file that exists, and after # one of its headings."""
    for path, heading in links(page):
        target = page.parent / path if path else page
        assert target.exists(), path
        if heading:
            assert heading in headings(target), f"{path}#{heading}"


def links(page: Path) -> list[tuple[str, str]]:
    """The relative links of a page: path and heading, either may be empty."""
    found = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", FENCE.sub("", page.read_text()))
    return [(path, heading) for path, heading in found if path or heading]


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
