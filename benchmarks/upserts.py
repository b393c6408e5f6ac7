"""U1: an identity provider that counts by itself, in the transaction that issues a token."""

import re
import subprocess
from collections.abc import Iterator
from functools import partial

from benchmarks import data, rivals
from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure, Rival, Samples, interleaved, more
from tests.support.postgresql import binaries

CONNECTIONS = 4
SUFFIX = "_own"
_RATE = re.compile(r"^tps = ([0-9.]+) \(", re.MULTILINE)
_TENANT, _AGENT = "'org-' || CAST(:organization AS int)", "'agent-' || CAST(:agent AS int)"
_INSERT = (
    f"INSERT INTO issuance_events ({data.COLUMNS})"
    f" VALUES ({_TENANT}, gen_random_uuid()::text, {_AGENT}, now())"
)


def tokens(bench: Bench) -> Iterator[Figure]:
    """U1: tokens a second, each a transaction, of four connections."""
    name = bench.cluster.create()
    with bench.cluster.connect(name) as connection:
        for table in rivals.TABLES:
            connection.execute(
                f"CREATE TABLE {table}{SUFFIX} (LIKE {table} INCLUDING ALL);"
                f"ALTER TABLE {table}{SUFFIX} ALTER COLUMN issued SET DEFAULT 1"
            )
    upserts = [_upsert(table, keys) for table, keys in rivals.POSTGRESQL.items()]
    named = [f"upsert_{number} AS ({text})" for number, text in enumerate(upserts[1:])]
    three_upserts = "; ".join(["BEGIN", *upserts[:3], "COMMIT"])
    ways = (
        (_INSERT, data.TENANTS),
        (three_upserts, data.TENANTS),
        (f"WITH {', '.join(named)} {upserts[0]}", data.TENANTS),
        (_INSERT, 1),
        (three_upserts, 1),
    )
    turns = [partial(_rate, bench, name, *way) for way in ways]
    ours, three, six, ours_of_one, three_of_one = (
        Samples(tuple(found), "/s") for found in interleaved(bench.repetitions, turns)
    )
    work = f"tokens a second, each with an INSERT for the service, {CONNECTIONS} connections"
    yield more("U1a", work, ours, Rival("each with three UPSERTs, as 0.1.0 counts", three), 2)
    yield more("U1b", work, ours, Rival("each with six UPSERTs in one statement", six), None)
    rival = Rival("each with three UPSERTs, which wait for one another", three_of_one)
    yield more("U1c", f"{work}, all of one organization", ours_of_one, rival, 2)


def _rate(bench: Bench, name: str, statements: str, organizations: int) -> float:
    """The tokens a second of all connections, sent by ``pgbench``."""
    script = bench.folder / "token.sql"
    drawn = rf"""
\set organization random(0, {organizations - 1})
\set agent random(0, {data.AGENTS - 1})
"""
    # pgbench takes what a line ends with a semicolon for a statement.
    script.write_text(drawn + statements.replace("; ", ";\n") + ";\n")
    ran = subprocess.run(
        [
            str(binaries() / "pgbench"),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={CONNECTIONS}",
            f"--time={bench.seconds:.0f}",
            f"--file={script}",
            bench.cluster.conninfo(name),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    rates = _RATE.findall(ran.stdout)
    if ran.returncode or not rates:
        raise BenchmarkError(f"pgbench: exit {ran.returncode}: {ran.stderr}")
    return float(rates[-1])


def _upsert(table: str, keys: dict[str, str]) -> str:
    """An UPSERT of one token issued now."""
    now = {name: text.replace("issued_at", "now()") for name, text in keys.items()}
    values = ", ".join(_AGENT if name == "agent_id" else text for name, text in now.items())
    has_hours = table == "daily_agent_issuance"
    more_names = ", hours" if has_hours else ""
    more_values = ", 1" if has_hours else ""
    return (
        f"INSERT INTO {table}{SUFFIX} AS own (tenant_id, {', '.join(keys)}{more_names})"
        f" VALUES ({_TENANT}, {values}{more_values})"
        f" ON CONFLICT (tenant_id, {', '.join(keys)}) DO UPDATE SET issued = own.issued + 1"
    )
