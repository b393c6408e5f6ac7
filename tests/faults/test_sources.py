"""A followed or pulled log loses and doubles nothing, however often its reader is killed."""

import random
import subprocess
import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.storage.database import Database
from app.storage.tables import daily_issuance, issuance_events, source_positions
from jobs.counting.run import run_rollup
from tests.faults.processes import PATIENCE_SECONDS
from tests.support.log_apis import SECRET, FakeProvider, serving
from tests.support.log_files import RotatedLog

KILLS = 50


class Killer:
    """Readers of a source, of which one is killed now and then."""

    def __init__(self, workshop, url, seed, *options):
        self.kills = 0
        self._child = workshop(url).start(
            *("tests.faults.source_victims", "--url", url, "--seed", str(seed)),
            *options,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._count, daemon=True)
        self._reader.start()

    def _count(self):
        for _line in self._child.stdout:
            self.kills += 1

    def end(self):
        self._child.stdin.close()
        assert self._child.wait(PATIENCE_SECONDS) == 0
        self._reader.join(PATIENCE_SECONDS)
        self._child.stdout.close()


def stored(database):
    with database.reading() as connection:
        return sorted(connection.scalars(sa.select(issuance_events.c.event_id)))


def wait_until(database, wanted):
    """Wait until the readers, which are still killed, have stored everything."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (found := stored(database)) != wanted and time.monotonic() < give_up:
        time.sleep(0.2)
    assert found == wanted


def assert_counted_once(database, events):
    """Each event is in the position's counts and in the summary tables once."""
    with database.reading() as connection:
        (accepted,) = connection.scalars(sa.select(source_positions.c.accepted)).all()
    assert accepted == events
    run_rollup(database, window_ids=1_000_000, wait_seconds=30)
    with database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.sum(daily_issuance.c.issued))) == events


def follow_under_kills(workshop, url, seed, folder, *, kills, children=1):
    database, dice = Database(make_url(url)), random.Random(seed)
    log = RotatedLog(folder / "audit.log", dice)
    options = ("--follow", str(log.path), "--children", str(children), "--pause", "0.15")
    killer = Killer(workshop, url, seed, *options)
    while not stored(database):  # the first start leaves rotated files alone
        log.write(1)
        time.sleep(0.05)
    while killer.kills < kills:
        log.write(dice.randrange(30))
        if dice.random() < 0.3:
            log.rotate()
        time.sleep(dice.uniform(0, 0.06))
    wait_until(database, log.written)
    killer.end()
    log.close()
    assert_counted_once(database, len(log.written))
    database.dispose()


def pull_under_kills(workshop, url, seed, folder, *, provider, kills):
    database, dice = Database(make_url(url)), random.Random(seed)
    secret = folder / "secret.toml"
    client = f'client_id = "us"\nclient_secret = "{SECRET}"\n'
    with serving(FakeProvider(provider, trouble=0.1, token_uses=40, dice=dice)) as fake:
        secret.write_text(client + f'token_url = "{fake.base}/token"\n')
        options = ("--pull", f"{provider} {fake.url}", "--secret-file", str(secret))
        killer = Killer(workshop, url, seed, *options, "--pause", "0.15")
        while killer.kills < kills:
            fake.add(dice.randrange(8))
            time.sleep(dice.uniform(0, 0.06))
        wait_until(database, fake.ids())
        killer.end()
        assert_counted_once(database, len(fake.records))
    database.dispose()


@pytest.mark.quick
def test_a_followed_log_survives_a_few_kills(workshop, sqlite_url, seed, tmp_path):
    """The test below in small."""
    follow_under_kills(workshop, sqlite_url, seed, tmp_path, kills=5)


@pytest.mark.quick
def test_a_pulled_log_survives_a_few_kills(workshop, sqlite_url, seed, tmp_path):
    """The test below in small."""
    pull_under_kills(workshop, sqlite_url, seed, tmp_path, provider="okta", kills=5)


@pytest.mark.parametrize("children", [1, 2], ids=["one", "two-at-once"])
def test_a_followed_log_loses_nothing(workshop, database_url, seed, tmp_path, children):
    """Fifty kills, with rotations of every kind in between, and also with two readers."""
    follow_under_kills(workshop, database_url, seed, tmp_path, kills=KILLS, children=children)


@pytest.mark.parametrize("provider", ["auth0", "okta", "keycloak", "zitadel", "entra-graph"])
def test_a_pulled_log_loses_nothing(workshop, database_url, seed, tmp_path, provider):
    """Fifty kills, while a tenth of the requests fails and tokens expire."""
    pull_under_kills(workshop, database_url, seed, tmp_path, provider=provider, kills=KILLS)
