"""U1: an identity provider that counts by itself, in the transaction that issues a token."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from random import Random

from benchmarks import data, rivals
from benchmarks.bench import Bench
from benchmarks.cluster import Connection
from benchmarks.figures import Figure, Rival, Samples, interleaved, more

CONNECTIONS = 4
SUFFIX = "_own"
_INSERT = f"INSERT INTO issuance_events ({data.COLUMNS}) VALUES (%s, %s, %s, now())"


def tokens(bench: Bench) -> Iterator[Figure]:
    """U1: tokens a second, each a transaction, of four connections."""
    name, numbers = bench.cluster.create(), count()
    with ExitStack() as stack:
        connections = [stack.enter_context(bench.cluster.connect(name)) for _ in range(CONNECTIONS)]
        for table in rivals.TABLES:
            connections[0].execute(
                f"CREATE TABLE {table}{SUFFIX} (LIKE {table} INCLUDING ALL);"
                f"ALTER TABLE {table}{SUFFIX} ALTER COLUMN issued SET DEFAULT 1"
            )

        def issue(one: Connection, tenant: str, agent: str) -> None:
            one.execute(_INSERT, (tenant, str(next(numbers)), agent))

        turns = [
            partial(_rate, bench, connections, way) for way in (issue, _count_three, _count_six)
        ]
        ours, three, six = (
            Samples(tuple(found), "/s") for found in interleaved(bench.repetitions, turns)
        )
    work = f"tokens a second, each with an INSERT for the service, {CONNECTIONS} connections"
    yield more("U1a", work, ours, Rival("each with three UPSERTs, as 0.1.0 counts", three), 2)
    yield more("U1b", work, ours, Rival("each with six UPSERTs in one statement", six), None)


def _rate(
    bench: Bench, connections: list[Connection], issue: Callable[[Connection, str, str], None]
) -> float:
    """The tokens a second of all connections."""
    until = time.monotonic() + bench.seconds
    began = time.perf_counter()

    def work(number: int) -> int:
        dice, done = Random(number), 0
        one = connections[number]
        while time.monotonic() < until:
            organization = dice.randrange(data.TENANTS)
            issue(one, f"org-{organization}", f"agent-{dice.randrange(data.AGENTS)}")
            done += 1
        return done

    with ThreadPoolExecutor(len(connections)) as pool:
        issued = sum(pool.map(work, range(len(connections))))
    return issued / (time.perf_counter() - began)


def _count_three(one: Connection, tenant: str, agent: str) -> None:
    """Add a token to the counts of 0.1.0, in one transaction, one statement after the other."""
    with one.transaction():
        for statement in _STATEMENTS[:3]:
            one.execute(statement, {"tenant": tenant, "agent": agent})


def _count_six(one: Connection, tenant: str, agent: str) -> None:
    """Add a token to all counts, in one round trip. Few programs would be written so."""
    one.execute(_UPSERTS, {"tenant": tenant, "agent": agent})


def _upsert(table: str, keys: dict[str, str]) -> str:
    """An UPSERT of one token issued now."""
    now = {name: text.replace("issued_at", "now()") for name, text in keys.items()}
    values = ", ".join("%(agent)s" if name == "agent_id" else text for name, text in now.items())
    has_hours = table == "daily_agent_issuance"
    more_names = ", hours" if has_hours else ""
    more_values = ", 1" if has_hours else ""
    return (
        f"INSERT INTO {table}{SUFFIX} AS own (tenant_id, {', '.join(keys)}{more_names})"
        f" VALUES (%(tenant)s, {values}{more_values})"
        f" ON CONFLICT (tenant_id, {', '.join(keys)}) DO UPDATE SET issued = own.issued + 1"
    )


_STATEMENTS = [_upsert(table, keys) for table, keys in rivals.POSTGRESQL.items()]
_NAMED = [f"upsert_{number} AS ({text})" for number, text in enumerate(_STATEMENTS[1:])]
_UPSERTS = f"WITH {', '.join(_NAMED)} {_STATEMENTS[0]}"
