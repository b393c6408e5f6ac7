"""``flask events follow``, ``flask events pull`` and ``flask sources status``."""

import json
import signal

import pytest
import sqlalchemy as sa

from app.intake.sources.positions import Spot, create, note_failure
from app.storage.database import Database
from app.storage.tables import issuance_events, source_positions
from tests.support.command_line import Runner, result
from tests.support.log_apis import SECRET, FakeProvider, serving
from tests.support.log_files import event_line
from tests.support.processes import PATIENCE_SECONDS, poll, process
from tests.support.settings import child_environ, make_settings


@pytest.fixture
def database(database_url):
    database = Database(make_settings(database_url).database_url)
    yield database
    database.dispose()


def count(database):
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(issuance_events))


@pytest.mark.slow
def test_files_are_followed_until_the_end_by_a_signal(database, database_url, tmp_path):
    """One process follows several files, stores what is written, and exits with 0."""
    paths = [tmp_path / f"{number}.log" for number in range(3)]
    paths[0].write_bytes(event_line("first"))
    command = ["flask", "events", "follow", "--format", "ndjson", *map(str, paths)]
    with process(*command, environ=child_environ(database_url)) as child:
        poll(lambda: count(database), lambda found: found == 1)
        paths[1].write_bytes(event_line("second"))
        paths[0].rename(tmp_path / "0.log.1")
        paths[0].write_bytes(event_line("third"))
        poll(lambda: count(database), lambda found: found == 3)
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--format", "ndjson", "{folder}"], "is a directory"),
        (["--format", "csv", "x.log"], "--format csv cannot be followed"),
        (["--format", "unknown", "x.log"], "--format must be one of"),
        (["x.log"], "--format must be one of"),
        (["--format", "ndjson", "--zone", "Nowhere", "x.log"], "--zone must be"),
        (["--format", "ndjson", "--organization", "", "x.log"], "--organization must have"),
        (
            ["--format", "native", "--organizations", "{folder}/table.toml", "x.log"],
            "--organizations does not apply",
        ),
        (["--format", "ndjson", "--rejects", "x.log", "x.log"], "--rejects is the followed file"),
    ],
)
def test_wrong_arguments_of_follow_are_named(flask, tmp_path, arguments, error):
    (tmp_path / "table.toml").write_text('acme = "org-a"\n')
    done = flask("events", "follow", *(one.format(folder=tmp_path) for one in arguments))
    assert done.returncode == 2
    assert error in done.stderr


@pytest.fixture
def okta(tmp_path):
    (tmp_path / "okta").write_text(SECRET)
    with serving(FakeProvider("okta")) as fake:
        yield fake


def pull(flask, okta, tmp_path, *options):
    return flask(
        *("events", "pull", "okta", "--url", okta.url, "--secret-file", str(tmp_path / "okta")),
        *("--organization", "org-a", "--json", *options),
    )


def test_a_pull_prints_what_its_records_were(flask, okta, tmp_path):
    """Each command is a pull of what is new; the totals are its own."""
    okta.add(20)
    assert result(pull(flask, okta, tmp_path))["accepted"] == 20
    okta.add(5)
    assert result(pull(flask, okta, tmp_path))["accepted"] == 5


def test_a_source_of_sources_file_is_pulled_by_its_name(database_url, okta, tmp_path):
    """The command and the jobs have one position for it."""
    file = tmp_path / "sources.toml"
    file.write_text(
        f'[[source]]\nkind = "pull"\nname = "acme"\nprovider = "okta"\nurl = "{okta.url}"\n'
        'secret_file = "okta"\norganization = "org-a"\n'
    )
    named = Runner(child_environ(database_url, SOURCES_FILE=str(file)))
    okta.add(9)
    assert result(named("events", "pull", "acme", "--json"))["accepted"] == 9
    (shown,) = result(named("sources", "status", "--json"))["sources"]
    assert (shown["source"], shown["accepted"]) == ("acme", 9)
    unknown = named("events", "pull", "other")
    assert (unknown.returncode, "has no pulled source other" in unknown.stderr) == (2, True)


def test_a_pull_that_cannot_go_on_says_why(flask, okta, tmp_path):
    """Exit 75 if it may succeed later, else 1; the secret is in no output."""
    okta.script = [lambda _: (429, {"Retry-After": "900"}, {}), lambda _: (403, {}, {})]
    later = pull(flask, okta, tmp_path)
    assert (later.returncode, later.stdout) == (75, "")
    assert "Error: okta: status 429; the next pull begins in 900 s" in later.stderr
    final = pull(flask, okta, tmp_path, "--name", "other")
    assert (final.returncode, "status 403" in final.stderr) == (1, True)
    assert SECRET not in later.stderr + final.stderr
    shown = result(flask("sources", "status", "--json"))["sources"]
    assert [one["error"] for one in shown] == [
        "status 429; the next pull begins in 900 s",
        "status 403",
    ]


def test_wrong_arguments_of_pull_are_named(flask, okta, tmp_path):
    done = flask("events", "pull", "ping", "--url", "https://x", "--secret-file", "none")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    half = flask("events", "pull", "okta", "--url", okta.url)
    assert (half.returncode, "need each other" in half.stderr) == (2, True)
    ping = ("--url", okta.url, "--secret-file", str(tmp_path / "okta"))
    unknown = flask("events", "pull", "ping", *ping)
    assert (unknown.returncode, "PROVIDER must be one of" in unknown.stderr) == (2, True)
    (tmp_path / "okta").write_text("a\nb")
    wrong = pull(flask, okta, tmp_path)
    assert (wrong.returncode, "--secret-file" in wrong.stderr) == (2, True)
    nameless = flask(
        *("events", "pull", "okta", "--url", okta.url, "--secret-file", str(tmp_path / "okta"))
    )
    assert nameless.returncode == 2


def test_status_shows_every_source(flask, database, database_url, tmp_path):
    """Those that were read, those that failed, and those that SOURCES_FILE alone names."""
    assert "no source has been read" in flask("sources", "status").stdout
    spot = create(database, Spot("/var/log/a.log", "host-1", "follow", ""))
    note_failure(database, spot, "it is gone")
    read = sa.insert(source_positions).values(
        source="auth0", place="", kind="auth0", position="{}", accepted=3, refused=1,
        newest_at=sa.text("'2026-04-01 09:00:00.000000'"),
        read_at=sa.text("'2026-04-01 09:00:05.000000'"),
    )  # fmt: skip
    if database.is_postgresql:
        read = read.values(newest_at=sa.text("'2026-04-01 09:00:00+00'::timestamptz"))
        read = read.values(read_at=sa.text("'2026-04-01 09:00:05+00'::timestamptz"))
    database.write(lambda connection: connection.execute(read))
    file = tmp_path / "sources.toml"
    file.write_text('[[source]]\nkind = "follow"\nname = "new"\npath = "n"\nformat = "native"\n')
    named = Runner(child_environ(database_url, SOURCES_FILE=str(file)))
    text = named("sources", "status").stdout
    assert "auth0 (auth0): 3 accepted, 0 duplicates, 0 skipped, 1 refused" in text
    assert "newest event 2026-04-01 09:00:00 UTC; read 2026-04-01 09:00:05 UTC" in text
    assert "/var/log/a.log (follow on host-1)" in text
    assert "it is gone" in text
    assert "new (follow): not read yet" in text
    shown = {one["source"]: one for one in result(named("sources", "status", "--json"))["sources"]}
    assert shown["auth0"]["newestAt"] == "2026-04-01T09:00:00Z"
    assert shown["auth0"]["lagSeconds"] > 0
    assert shown["new"]["state"] == "not read yet"
    assert json.dumps(shown)


def test_status_names_a_mistake_in_sources_file(database_url, tmp_path):
    file = tmp_path / "sources.toml"
    file.write_text("[[source]]\n")
    done = Runner(child_environ(database_url, SOURCES_FILE=str(file)))("sources", "status")
    assert done.returncode == 1
    assert f"SOURCES_FILE names {file}, line 1: kind: must be follow or pull" in done.stderr
