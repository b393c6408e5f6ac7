"""Demonstration data: its shape, that it only tops up, and when it is refused."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.cli.demo import NAMES, ORGANIZATION, load_demo
from app.config.settings import ROOT
from app.errors import RefusedError
from app.intake.agent_names import set_names
from app.storage.database import Database
from app.storage.tables import agents, issuance_events
from tests.support.command_line import Runner
from tests.support.databases import migrate
from tests.support.settings import child_environ

NOW = datetime(2026, 4, 15, 12, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1, hours=3)
SILENT, SPIKES = "silent days", "spike days"

Row = tuple[str, str, str, datetime]


def stored(database: Database) -> list[Row]:
    event = issuance_events.c
    rows = sa.select(event.tenant_id, event.event_id, event.agent_id, event.issued_at)
    with database.reading() as connection:
        return sorted((*row,) for row in connection.execute(rows))


def per_day(rows: list[Row], last: date, days: int = 90) -> list[int]:
    """The counts of the days up to ``last``, oldest first."""
    counts = Counter(row[3].date() for row in rows)
    return [counts[last - timedelta(days=back)] for back in reversed(range(days))]


def anomalies(counts: list[int]) -> dict[str, int]:
    """Days without any token, and days with far more than a usual one."""
    usual = median(sorted(counts)[len(counts) // 3 :])
    return {
        SILENT: sum(count == 0 for count in counts),
        SPIKES: sum(count > 2 * usual for count in counts),
    }


def fresh_database(folder: Path) -> Database:
    url = f"sqlite:///{folder / 'demo.db'}"
    migrate(url)
    return Database(make_url(url))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[datetime, list[Row]]:
    """The events of a demonstration loaded NOW into an empty database, and again LATER."""
    database = fresh_database(tmp_path_factory.mktemp("demo"))
    rows = {}
    for now in (NOW, LATER):
        load_demo(database, now)
        rows[now] = stored(database)
    database.dispose()
    return rows


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The events of a demonstration loaded NOW into an empty database."""
    database = fresh_database(tmp_path_factory.mktemp("demo"))
    load_demo(database, NOW)
    rows = stored(database)
    database.dispose()
    return rows


@pytest.fixture
def demo(database: Database) -> Callable[[datetime], list[Row]]:
    """Load the demonstration and see what is stored then."""

    def load(now: datetime) -> list[Row]:
        load_demo(database, now)
        return stored(database)

    return load


@pytest.fixture
def forget(database: Database) -> Callable[..., None]:
    """Delete raw events, as the purge does, all or those issued before a time."""

    def forget(before: datetime | None = None) -> None:
        statement = sa.delete(issuance_events)
        if before:
            statement = statement.where(issuance_events.c.issued_at < before)
        database.write(lambda connection: connection.execute(statement))

    return forget


# Shape


def test_the_demo_is_one_organization_with_about_40_agents(fresh: list[Row]) -> None:
    assert {row[0] for row in fresh} == {ORGANIZATION}
    assert 35 <= len({row[2] for row in fresh}) <= 45


def test_the_demo_covers_90_days_up_to_now(fresh: list[Row]) -> None:
    instants = [row[3] for row in fresh]
    assert min(instants).date() == NOW.date() - timedelta(days=89)
    assert NOW - timedelta(hours=1) < max(instants) <= NOW


@pytest.mark.slow
def test_any_90_days_show_one_silent_day_and_one_spike(tmp_path: Path) -> None:
    database = fresh_database(tmp_path)
    for step in range(4):
        load_demo(database, NOW + timedelta(days=89 * step))
    rows = stored(database)
    database.dispose()
    days = 89 * 3  # the last day is not over
    counts = per_day(rows, (NOW + timedelta(days=days - 1)).date(), 89 + days)
    found = {first: anomalies(counts[first : first + 90]) for first in range(days)}
    assert {first: seen for first, seen in found.items() if seen != {SILENT: 1, SPIKES: 1}} == {}


def test_weekends_are_quiet(fresh: list[Row]) -> None:
    days = Counter(row[3].weekday() for row in fresh)
    assert max(days[5], days[6]) < min(days[day] for day in range(5)) / 2


def test_office_hours_are_busy(fresh: list[Row]) -> None:
    hours = Counter(row[3].hour for row in fresh if row[3].weekday() < 5)
    assert min(hours[hour] for hour in range(9, 17)) > 2 * max(hours[hour] for hour in range(5))


def test_one_agent_has_most_of_the_months_tokens(fresh: list[Row]) -> None:
    agents = Counter(row[2] for row in fresh if row[3].date() >= date(2026, 4, 1))
    assert agents.most_common(1)[0][1] > agents.total() / 2


@pytest.mark.slow
def test_every_agent_of_the_demo_has_a_name_of_its_own(tmp_path: Path) -> None:
    database = fresh_database(tmp_path)
    load_demo(database, NOW)
    with database.reading() as connection:
        named = connection.execute(sa.select(agents)).all()
    agent_ids = {row[2] for row in stored(database)}
    database.dispose()
    assert {row.tenant_id for row in named} == {ORGANIZATION}
    assert {row.agent_id for row in named} == agent_ids
    assert len({row.name for row in named}) == len(named) == len(NAMES)


@pytest.mark.slow
def test_the_demo_is_the_same_for_everybody(fresh: list[Row], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    script = (
        "import sys; from datetime import datetime; from pathlib import Path;"
        "from app.cli.demo import load_demo; from tests.app.cli.test_demo import *;"
        "database = fresh_database(Path(sys.argv[1]));"
        "load_demo(database, datetime.fromisoformat(sys.argv[2]));"
        "print(digest(stored(database))); database.dispose()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), NOW.isoformat()],
        cwd=ROOT,
        env=child_environ(url, PYTHONHASHSEED="4711", TZ="Asia/Kathmandu"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == digest(fresh)


def digest(rows: list[Row]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


# Topping up


@pytest.mark.slow
def test_loading_again_only_tops_up(
    demo: Callable[[datetime], list[Row]], fresh: list[Row]
) -> None:
    before = demo(NOW)
    assert before == fresh
    assert demo(NOW) == before
    for advanced in (timedelta(hours=3), timedelta(days=2), timedelta(days=100)):
        after = demo(NOW + advanced)
        added = set(after) - set(before)
        assert set(before) <= set(after)
        assert added
        assert min(row[3] for row in added) > max(row[3] for row in before)
        assert max(row[3] for row in added) <= NOW + advanced
        before = after
    assert anomalies(per_day(before, (NOW + timedelta(days=100)).date()))[SILENT] == 1


@pytest.mark.parametrize("kept_days", [None, 10], ids=["all", "all but the last days"])
@pytest.mark.slow
def test_nothing_counts_twice_when_counted_events_are_gone(
    demo: Callable[[datetime], list[Row]],
    roll_up: Callable[[], object],
    forget: Callable[..., None],
    trend: Callable[..., list[int]],
    *,
    loaded: dict[datetime, list[Row]],
    kept_days: int | None,
) -> None:
    fresh = demo(NOW)
    today = NOW.date().isoformat()
    roll_up()
    assert trend(today, 90, tenant=ORGANIZATION) == per_day(fresh, NOW.date())
    forget(NOW - timedelta(days=kept_days) if kept_days else None)
    demo(NOW)
    roll_up()
    assert trend(today, 90, tenant=ORGANIZATION) == per_day(fresh, NOW.date())
    forget(NOW - timedelta(days=kept_days) if kept_days else None)
    demo(LATER)
    roll_up()
    counts = trend(LATER.date().isoformat(), 91, tenant=ORGANIZATION)
    whole = per_day(loaded[LATER], LATER.date(), 91)
    assert [*counts[:-2], counts[-1]] == [*whole[:-2], whole[-1]]
    # Without any event left, what followed on the day of the last load cannot be told apart.
    assert counts[-2] == whole[-2] or (
        kept_days is None and counts[-2] == per_day(fresh, NOW.date())[-1]
    )


@pytest.mark.slow
def test_a_day_delivered_in_parts_counts_once(
    demo: Callable[[datetime], list[Row]],
    forget: Callable[..., None],
    roll_up: Callable[[], object],
    trend: Callable[..., list[int]],
    loaded: dict[datetime, list[Row]],
) -> None:
    """A day delivered in parts counts once, even if retention has deleted the first part."""
    demo(NOW)
    demo(NOW + timedelta(hours=3))
    roll_up()
    forget(NOW)  # a short retention: the first part was received earlier, so it goes first
    demo(LATER)
    roll_up()
    counts = trend(LATER.date().isoformat(), 91, tenant=ORGANIZATION)
    assert counts == per_day(loaded[LATER], LATER.date(), 91)


# Refusals


@pytest.mark.parametrize("tenant", ["org-other", ORGANIZATION + "0"])
@pytest.mark.parametrize("counted", [False, True], ids=["as raw events", "as rollups only"])
def test_another_organizations_data_refuses_the_demo(
    database: Database,
    issue: Callable[..., object],
    roll_up: Callable[[], object],
    forget: Callable[..., None],
    *,
    counted: bool,
    tenant: str,
) -> None:
    issue("2024-04-01T09:00:00Z", tenant=tenant)
    if counted:
        roll_up()
        forget()
    before = stored(database)
    with pytest.raises(RefusedError):
        load_demo(database, NOW)
    assert stored(database) == before


def test_another_organizations_names_refuse_the_demo(database: Database) -> None:
    set_names(database, "org-other", {"agent-1": "billing"}, NOW)
    with pytest.raises(RefusedError):
        load_demo(database, NOW)
    assert stored(database) == []


def test_the_organizations_own_events_refuse_the_demo(
    database: Database, issue: Callable[..., object]
) -> None:
    issue("2026-04-01T09:00:00Z", tenant=ORGANIZATION, event_id="real-1")
    before = stored(database)
    with pytest.raises(RefusedError):
        load_demo(database, NOW)
    assert stored(database) == before


@pytest.mark.slow
def test_a_demo_that_others_joined_is_not_topped_up(
    database: Database, issue: Callable[..., object]
) -> None:
    load_demo(database, NOW - timedelta(days=1))
    issue("2026-04-01T09:00:00Z", tenant="org-other")
    before = stored(database)
    with pytest.raises(RefusedError):
        load_demo(database, NOW)
    assert stored(database) == before


def test_the_command_refuses_in_one_line(flask: Runner, issue: Callable[..., object]) -> None:
    issue("2024-04-01T09:00:00Z")
    done = flask("demo", "load")
    assert done.returncode not in (0, 75)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_the_calls_are_ready_to_paste(flask: Runner) -> None:
    done = flask("demo", "calls", PORT="3456")
    assert (done.returncode, done.stderr) == (0, "")
    assert "TOKEN=" in done.stdout
    for path in ("tokens", "agents/activity", "agents"):
        assert f'curl -s "http://127.0.0.1:3456/api/v1/analytics/{path}' in done.stdout
    assert done.stdout.count('-H "Authorization: Bearer $TOKEN"') == 3
    line = "# the dashboard (paste the TOKEN there): http://127.0.0.1:3456/dashboard\n"
    assert line in done.stdout


def test_demo_names_the_dashboard_without_token_login(
    flask: Runner,
) -> None:
    """The demo prints the dashboard's address even if pasting a token is disabled."""
    done = flask("demo", "calls", DASHBOARD_TOKEN_LOGIN="0")
    assert "# the dashboard: http://127.0.0.1:3000/dashboard\n" in done.stdout
    as_json = json.loads(flask("demo", "calls", "--json").stdout)
    assert as_json["dashboard"] == "http://127.0.0.1:3000/dashboard"


def test_the_calls_are_of_an_organization_that_has_data(
    flask: Runner, issue: Callable[..., object], roll_up: Callable[[], object]
) -> None:
    """On own data, counted or not, the token is of an organization that has some."""

    def printed() -> str:
        found: str = json.loads(flask("demo", "calls", "--json").stdout)["organization"]
        return found

    assert printed() == ORGANIZATION
    issue(NOW, tenant="org-not-counted")
    assert printed() == "org-not-counted"
    roll_up()
    issue(NOW - timedelta(days=3), times=9, tenant="org-older")
    roll_up()
    assert printed() == "org-not-counted"
    assert "# a token of the organization org-not-counted\n" in flask("demo", "calls").stdout
    issue(NOW - timedelta(days=9), tenant=ORGANIZATION)
    roll_up()
    assert printed() == ORGANIZATION


def test_the_printed_calls_follow_the_public_url(flask: Runner) -> None:
    done = flask("demo", "calls", PUBLIC_URL="https://example.com/tokens/")
    assert done.stdout.count('curl -s "https://example.com/tokens/api/v1/analytics/') == 3
    assert "https://example.com/tokens/dashboard\n" in done.stdout
