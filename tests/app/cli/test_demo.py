"""Demonstration data: its story, that it only tops up, and when it is refused."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import jwt
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.cli import demo_first_release, demo_story
from app.cli.demo import NAMES, ORGANIZATION, load_demo
from app.cli.demo_story import OTHERS, TENANTS, telling
from app.config.settings import ROOT
from app.errors import RefusedError
from app.intake.agent_names import set_names
from app.intake.events import Event
from app.intake.organization_settings import (
    OrganizationSettings,
    Price,
    settings_of,
    store_settings,
)
from app.intake.store import store_events
from app.storage.database import Database
from app.storage.tables import issuance_events
from tests.support.command_line import Runner, assert_one_clear_error
from tests.support.databases import migrate
from tests.support.settings import child_environ

NOW = datetime(2026, 4, 15, 12, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1, hours=3)
FIRST = NOW.date() - timedelta(days=199)
DAY = timedelta(days=1)

Row = tuple[str, str, str, datetime]


def stored(database: Database) -> list[Row]:
    event = issuance_events.c
    rows = sa.select(event.tenant_id, event.event_id, event.agent_id, event.issued_at)
    with database.reading() as connection:
        return sorted((*row,) for row in connection.execute(rows))


def story(now: datetime, first: date = FIRST) -> list[Event]:
    """The events of the story from its first day up to a time."""
    days = [first + number * DAY for number in range((now.date() - first).days + 1)]
    events = [event for day in days for event in demo_story.day_events(first, day)]
    return sorted(event for event in events if event.issued_at <= now)


def rows_of(events: Iterable[Event]) -> list[Row]:
    return sorted(event[:4] for event in events)


def per_day(rows: list[Row], last: date, days: int = 90) -> list[int]:
    """The story's counts of the days up to ``last``, oldest first."""
    counts = Counter(row[3].date() for row in rows if row[0] == ORGANIZATION)
    return [counts[last - timedelta(days=back)] for back in reversed(range(days))]


def fresh_database(folder: Path) -> Database:
    url = f"sqlite:///{folder / 'demo.db'}"
    migrate(url)
    return Database(make_url(url))


@pytest.fixture(scope="module")
def told() -> list[Event]:
    """The events of the story up to NOW."""
    return story(NOW)


@pytest.fixture(scope="module")
def its_own(told: list[Event]) -> list[Event]:
    """Those of the organization that the story is about."""
    return [event for event in told if event.tenant_id == ORGANIZATION]


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


# The story


def test_the_demo_is_an_organization_of_40_agents(told: list[Event]) -> None:
    """The story is about one organization of 40 agents; the others are smaller."""
    sizes = Counter(event.tenant_id for event in told)
    assert sizes.most_common(1)[0][0] == ORGANIZATION
    assert set(sizes) == set(TENANTS)
    assert len({event.agent_id for event in told if event.tenant_id == ORGANIZATION}) == 40


def test_the_demo_covers_200_days_up_to_now(told: list[Event]) -> None:
    instants = [event.issued_at for event in told]
    assert min(instants).date() == NOW.date() - timedelta(days=199)
    assert NOW - timedelta(hours=1) < max(instants) <= NOW


def test_a_telling_has_its_days_before_the_load() -> None:
    """Whatever day the demonstration is loaded on, the story has happened in the weeks before."""
    for number in range(7):
        now = NOW.date() + number * DAY
        one = telling(now - 199 * DAY, now)
        assert one.now == now
        assert now - 28 * DAY < one.spike < one.silent < one.loop_from < one.leaked_from < now
        assert now - 28 * DAY < one.quiet_from < one.silent
        assert one.holiday < one.spike
        assert max(one.spike.weekday(), one.silent.weekday(), one.holiday.weekday()) < 5


def test_the_story_is_told_again_each_200_days() -> None:
    tellings = [telling(FIRST, FIRST + number * DAY) for number in range(1000)]
    assert all(one.now - 200 * DAY <= one.spike < one.now for one in tellings)
    assert len(set(tellings)) == 5
    for one, other in pairwise(dict.fromkeys(tellings)):
        assert other.now - one.now == 200 * DAY


def test_the_days_of_the_story_are_as_told(its_own: list[Event]) -> None:
    """A spike by one agent, a silent day, a holiday, a loop, a leak, a quiet and a new agent."""
    one = telling(FIRST, NOW.date())
    days = Counter(event.issued_at.date() for event in its_own)
    of_agents = Counter((event.agent_name, event.issued_at.date()) for event in its_own)
    usual = (one.spike - 7 * DAY, one.spike + 7 * DAY)
    assert days[one.silent] == 0
    assert days[one.spike] > 3 * max(days[day] for day in usual)
    assert of_agents[demo_story.SPIKING, one.spike] > days[one.spike] / 2
    assert days[one.holiday] < 0.6 * days[one.holiday - 7 * DAY]
    loop = demo_story.LOOPING
    assert of_agents[loop, one.loop_from] > 4 * of_agents[loop, one.loop_from - 7 * DAY]
    last = max(day for name, day in of_agents if name == demo_story.QUIET)
    assert last == one.quiet_from - DAY
    seen = min(day for name, day in of_agents if name == demo_story.NEW)
    assert NOW.date() - 7 * DAY < seen < NOW.date()
    nights = {
        event.issued_at.date()
        for event in its_own
        if event.agent_name == demo_story.LEAKED and event.issued_at.hour < 6
    }
    assert nights == {one.leaked_from + number * DAY for number in range(2)}


def test_agents_have_sizes_by_zipfs_law(its_own: list[Event]) -> None:
    """The second largest agent has about half of the largest one's tokens, and so on."""
    week = Counter(
        event.agent_name
        for event in its_own
        if FIRST + 30 * DAY <= event.issued_at.date() < FIRST + 58 * DAY
        and event.issued_at.weekday() < 5
    )
    sizes = [count for _, count in week.most_common(38)]
    for rank, size in enumerate(sizes, 1):
        assert 0.75 < size * rank / sizes[0] < 1.35


def test_the_demo_grows(its_own: list[Event]) -> None:
    days = Counter(event.issued_at.date() for event in its_own)
    weeks = [sum(days[FIRST + (start + n) * DAY] for n in range(7)) for start in (7, 84, 147)]
    assert weeks[0] * 1.1 < weeks[1]
    assert weeks[1] * 1.1 < weeks[2]


def test_weekends_are_quiet(its_own: list[Event]) -> None:
    days = Counter(event.issued_at.weekday() for event in its_own)
    assert max(days[5], days[6]) < min(days[day] for day in range(5)) / 2


def test_office_hours_are_busy(its_own: list[Event]) -> None:
    hours = Counter(event.issued_at.hour for event in its_own if event.issued_at.weekday() < 5)
    assert min(hours[hour] for hour in range(9, 17)) > 2 * max(hours[hour] for hour in range(5))


def test_one_organization_has_a_dominant_agent(told: list[Event]) -> None:
    month = Counter(
        event.agent_name
        for event in told
        if event.tenant_id == demo_story.DOMINATED and event.issued_at.date() >= date(2026, 4, 1)
    )
    assert month[demo_story.DOMINANT] > 0.82 * month.total()


def test_every_agent_of_the_demo_has_a_name_of_its_own(told: list[Event]) -> None:
    named = {(event.tenant_id, event.agent_id, event.agent_name) for event in told}
    assert len(named) == len({one[:2] for one in named}) == len({(one[0], one[2]) for one in named})
    assert {name for tenant, _, name in named if tenant == ORGANIZATION} == set(NAMES)


@pytest.mark.slow
def test_the_demo_is_the_same_for_everybody(told: list[Event], tmp_path: Path) -> None:
    """Another process, with another hash seed and time zone, stores the same events."""
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
    assert done.stdout.strip() == digest(rows_of(told))


def digest(rows: list[Row]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()


# Topping up


@pytest.mark.slow
def test_loading_again_only_tops_up(
    demo: Callable[[datetime], list[Row]], told: list[Event]
) -> None:
    before = demo(NOW)
    assert before == rows_of(told)
    assert demo(NOW) == before
    for advanced in (timedelta(hours=3), timedelta(days=2), timedelta(days=100)):
        after = demo(NOW + advanced)
        added = set(after) - set(before)
        assert set(before) <= set(after)
        assert added
        assert min(row[3] for row in added) > max(row[3] for row in before)
        assert max(row[3] for row in added) <= NOW + advanced
        before = after
    assert before == rows_of(story(NOW + timedelta(days=100)))


@pytest.mark.parametrize("kept_days", [None, 10], ids=["all", "all but the last days"])
@pytest.mark.slow
def test_nothing_counts_twice_when_counted_events_are_gone(
    demo: Callable[[datetime], list[Row]],
    roll_up: Callable[[], object],
    forget: Callable[..., None],
    trend: Callable[..., list[int]],
    *,
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
    whole = per_day(rows_of(story(LATER)), LATER.date(), 91)
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
) -> None:
    """A day delivered in parts counts once, even if retention has deleted the first part."""
    demo(NOW)
    demo(NOW + timedelta(hours=3))
    roll_up()
    forget(NOW)  # a short retention: the first part was received earlier, so it goes first
    demo(LATER)
    roll_up()
    counts = trend(LATER.date().isoformat(), 91, tenant=ORGANIZATION)
    assert counts == per_day(rows_of(story(LATER)), LATER.date(), 91)


def test_a_demo_of_the_first_release_goes_on_as_it_began(
    database: Database, demo: Callable[[datetime], list[Row]]
) -> None:
    """A database that 0.1.0 has filled gets the other events of its last day, and later days."""
    days = [LATER.date() - back * DAY for back in (3, 2, 1, 0)]
    whole = [event for day in days for event in demo_first_release.day_events(day)]
    store_events(database, [event for event in whole if event.issued_at <= NOW])
    after = demo(LATER)
    assert after == rows_of(event for event in whole if event.issued_at <= LATER)
    assert {row[0] for row in after} == {ORGANIZATION}
    assert demo(LATER) == after


def test_the_holidays_are_days_off_unless_there_are_settings(
    database: Database, demo: Callable[[datetime], list[Row]]
) -> None:
    """The demonstration lists its holidays as days off, and never replaces settings."""

    def settings() -> OrganizationSettings:
        with database.reading() as connection:
            return settings_of(connection, ORGANIZATION)

    # Stored before, so that only the last days are loaded.
    events = demo_story.day_events(FIRST, NOW.date() - DAY)
    store_events(database, events)
    demo(NOW)
    first = NOW.date() - DAY
    days_off = settings().days_off
    assert days_off is not None
    assert telling(first, first).holiday in days_off.dates
    own = OrganizationSettings(price=Price(2.0, "EUR"))
    store_settings(database, ORGANIZATION, own, NOW, by="tester")
    demo(LATER)
    assert settings() == own


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
    set_names(database, "org-other", {"agent-1": "billing"}, NOW, by="tester")
    with pytest.raises(RefusedError):
        load_demo(database, NOW)
    assert stored(database) == []


@pytest.mark.parametrize("tenant", [ORGANIZATION, OTHERS[0].tenant_id])
def test_the_organizations_own_events_refuse_the_demo(
    database: Database, issue: Callable[..., object], tenant: str
) -> None:
    issue("2026-04-01T09:00:00Z", tenant=tenant, event_id="real-1")
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


def test_preparing_serves_a_database_with_other_data_as_it_is(
    flask: Runner, issue: Callable[..., object]
) -> None:
    issue("2024-04-01T09:00:00Z")
    done = flask("demo", "prepare")
    assert done.returncode == 0
    steps = ["(head)", "serving the database as it is", "done: 1 events", "# open this link"]
    places = [done.stdout.index(step) for step in steps]
    assert places == sorted(places)
    assert done.stderr.count("\n") == 1  # why the demonstration was not added


def test_preparing_ends_where_a_step_fails(flask: Runner, tmp_path: Path) -> None:
    done = flask("demo", "prepare", DATABASE_URL=f"sqlite:///{tmp_path}/none/analytics.db")
    assert_one_clear_error(done)


@pytest.mark.slow
def test_preparing_again_adds_only_what_was_issued_since(flask: Runner) -> None:
    first, second = flask("demo", "prepare"), flask("demo", "prepare")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    added = [int(text) for text in re.findall(r"data: (\d+) events", first.stdout + second.stdout)]
    assert added[0] > 100_000
    assert added[1] <= 20  # about one in two minutes
    assert "# open this link" in second.stdout


def test_the_calls_are_ready_to_paste(flask: Runner) -> None:
    done = flask("demo", "calls", PORT="3456")
    assert (done.returncode, done.stderr) == (0, "")
    assert "TOKEN=" in done.stdout
    for path in ("tokens", "agents/activity", "agents"):
        assert f'curl -s "http://127.0.0.1:3456/api/v1/analytics/{path}' in done.stdout
    assert done.stdout.count('-H "Authorization: Bearer $TOKEN"') == 3
    line = "# the dashboard (paste the TOKEN there): http://127.0.0.1:3456/dashboard\n"
    assert line in done.stdout


def test_the_first_line_is_a_link_that_signs_in(flask: Runner) -> None:
    """The printed token is behind the #, which browsers do not send."""
    done = flask("demo", "calls", PORT="3456")
    first, second = done.stdout.split("\n")[1:3]
    token = second.removeprefix("TOKEN=")
    assert first.endswith(f": http://127.0.0.1:3456/signin/link#{token}")
    claims = jwt.decode(token, options={"verify_signature": False})
    wanted = {"events:write", "agents:write", "analytics:admin", "analytics:read:any"}
    assert set(claims["scope"].split()) == wanted
    assert claims["organization_id"] == ORGANIZATION


def test_there_is_no_link_where_it_would_not_sign_in(flask: Runner) -> None:
    """In production, and where no token can be pasted, no link is printed."""
    secrets = {"SECRET_KEY": "0123456789abcdef" * 2, "JWT_SECRET_KEY": "fedcba9876543210" * 2}
    production = {"APP_ENV": "production", "ALLOW_SQLITE": "1", **secrets}
    for variables in ({"DASHBOARD_TOKEN_LOGIN": "0"}, production):
        done = flask("demo", "calls", **variables)
        assert (done.returncode, done.stderr) == (0, "")
        assert "/signin/link" not in done.stdout
        assert json.loads(flask("demo", "calls", "--json", **variables).stdout)["signIn"] is None
    token = json.loads(flask("demo", "calls", "--json", **production).stdout)["token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["scope"] == "events:write agents:write"


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
