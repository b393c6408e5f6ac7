"""Databases to copy from and to, of both kinds."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.storage.database import Database
from tests.jobs.copying.copies import KINDS, open_url
from tests.support.databases import PostgreSQL


@pytest.fixture
def make_url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Makes a fresh database of a kind, migrated or without any table; its URL."""
    names: list[str] = []

    def make(kind: str, *, bare: bool = False) -> str:
        if kind == "sqlite":
            path = tmp_path / f"{uuid.uuid4().hex}.db"
            if not bare:
                shutil.copy(request.getfixturevalue("sqlite_template"), path)
            return f"sqlite:///{path}"
        factory: PostgreSQL = request.getfixturevalue("postgresql")
        names.append(factory.create("template0" if bare else None))
        return factory.at(names[-1])

    yield make
    for name in names:
        request.getfixturevalue("postgresql").drop(name)


@pytest.fixture
def open_new(make_url_of: Callable[..., str]) -> Iterator[Callable[..., Database]]:
    """Opens such databases, and closes them before they are dropped."""
    opened = []

    def open_new(kind: str, **options: bool) -> Database:
        opened.append(open_url(make_url_of(kind, **options)))
        return opened[-1]

    yield open_new
    for database in opened:
        database.dispose()


@pytest.fixture(params=KINDS, ids=lambda kind: f"from {kind}")
def source(request: pytest.FixtureRequest, open_new: Callable[..., Database]) -> Database:
    return open_new(request.param)


@pytest.fixture(params=KINDS, ids=lambda kind: f"to {kind}")
def target(request: pytest.FixtureRequest, open_new: Callable[..., Database]) -> Database:
    return open_new(request.param)
