"""Every command, route and variable stands in the README or the documents beside it."""

import ast
import re
from pathlib import Path

import pytest
from flask import Flask

from app.config.settings import ROOT
from app.web.api.openapi import path_of
from tests.support.command_line import commands


@pytest.fixture(scope="module")
def documents() -> str:
    """What users read, with every run of white space as one space."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
