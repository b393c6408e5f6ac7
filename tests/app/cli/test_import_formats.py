"""``flask events import`` of providers' logs: options, summary, warnings, rejects and trials."""

import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.app.intake.formats import (
    test_auth0,
    test_cloudevents,
    test_entra,
    test_keycloak,
    test_okta,
)
from tests.app.intake.formats.reading import lines
from tests.support.command_line import Runner, assert_one_clear_error, line
from tests.support.settings import child_environ

K = test_keycloak
AT = "2024-03-01T00:00:00Z"


@pytest.fixture(autouse=True)
def settled_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last line without its end is awaited while a file is new; these files are complete."""
    monkeypatch.setattr("app.intake.files.SETTLED_SECONDS", 0)


@pytest.fixture
def sqlite_flask(sqlite_url: str) -> Runner:
    """For rules that no database has a part in."""
    return Runner(child_environ(sqlite_url))


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def totals(done: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cloudevent(number: int, **members: Any) -> dict[str, Any]:
    return test_cloudevents.record(number, time=AT) | members


def test_a_mixed_estate_is_imported_into_one_organization(flask: Runner, tmp_path: Path) -> None:
    """Several providers' files, each in its own format; the same token in two files counts once."""
    files = {
        "rest.json": json.dumps([K.rest(1), K.rest(2, "LOGIN"), K.rest(3)], indent=1),
        "server.log": K.console(K.message(1)) + K.console(K.message(4)),
        "entra.json": json.dumps({"records": [test_entra.blob(1)] * 2}),
        "auth0.ndjson": lines(test_auth0.stream(1)),
        "okta.json": lines(test_okta.record(1)),
        "native.ndjson": line("n1", organizationId=...).decode(),
    }
    paths = [written(tmp_path, name, text) for name, text in files.items()]
    done = flask("events", "import", *paths, "--organization", "acme", "--zone", "UTC", "--json")
    assert done.returncode == 0
    assert totals(done) == {
        "received": 10,
        "accepted": 7,
        "duplicates": 2,
        "refused": 0,
        "skipped": {"no issuance": 1},
    }
    told = [text.split(": is read as ") for text in done.stderr.splitlines() if "read as" in text]
    assert [name for _, name in told] == ["keycloak", "keycloak", "entra", "auth0", "okta"]
    again = totals(
        flask("events", "import", *paths, "--organization", "acme", "--zone", "UTC", "--json")
    )
    assert (again["accepted"], again["duplicates"]) == (0, 9)


def test_skips_are_counted_by_reason_and_are_no_error(sqlite_flask: Runner) -> None:
    """Records that are not issuances are in the summary, and the exit code is 0."""
    data = lines(cloudevent(1), cloudevent(2, type="other"), {"specversion": "0.3"}).encode()
    done = sqlite_flask("events", "import", "-", "--format", "cloudevents", stdin=data)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "3 records: 1 stored, 0 duplicates, 0 refused, 2 skipped (1 no issuance, 1 not an event of"
        " this format)\n"
    )


def test_refusals_name_file_line_and_reason_but_no_value(sqlite_flask: Runner) -> None:
    """Incomplete records are refused with exit 1; no value of a record is printed."""
    secret = "hunter2-secret"
    bad = [
        cloudevent(1, subject=None, note=secret),
        cloudevent(2, time=secret),
        cloudevent(3, organizationid={secret: secret}),
        cloudevent(4, source=f"{secret}\x00"),
    ]
    data = lines(cloudevent(0), *bad) + f'{{"specversion":"1.0","x":"{secret}\n' + f"{secret}\n"
    done = sqlite_flask(
        "events", "import", "-", "--format", "cloudevents", "--json", stdin=data.encode()
    )
    assert done.returncode == 1
    assert totals(done) == {
        "received": 7,
        "accepted": 1,
        "duplicates": 0,
        "refused": 6,
        "skipped": {},
    }
    numbers = [text.split(":")[1] for text in done.stderr.splitlines()]
    assert numbers == ["2", "3", "4", "5", "6", "7"]
    for reason in ("no agent", "unusable time", "no organization", "no id", "unreadable"):
        assert reason in done.stderr
    assert secret not in done.stderr + done.stdout


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_decides_organizations(sqlite_flask: Runner, tmp_path: Path, packed: bool) -> None:
    """A table maps the provider's names to organizations; REST and log land in one."""
    table = written(
        tmp_path,
        "table.toml",
        f'default = "rest"\nnames = {{ acme = "org-1", "{K.REALM}" = "org-1" }}\n',
    )
    logs = [json.dumps([K.rest(1)]), K.console(K.message(1)), lines(test_auth0.stream(1))]
    paths = []
    for number, text in enumerate(logs):
        paths.append(str(tmp_path / f"log-{number}"))
        data = text.encode()
        Path(paths[-1]).write_bytes(gzip.compress(data) if packed else data)
    options = ("--organizations", table, "--zone", "UTC", "--json", "--dry-run")
    done = sqlite_flask("events", "import", *paths, *options)
    assert totals(done)["organizations"] == {"org-1": 3}
    stored = sqlite_flask("events", "import", *paths, *options[:-1])
    assert (totals(stored)["accepted"], totals(stored)["duplicates"]) == (2, 1)


def test_a_table_does_not_apply_to_own_events(sqlite_flask: Runner, tmp_path: Path) -> None:
    """Events of this service name your organizations already; a line says so."""
    table = written(tmp_path, "table.toml", 'default = "other"\norg-a = "org-1"\n')
    done = sqlite_flask("events", "import", "-", "--organizations", table, "--dry-run", "--json",
                        stdin=line())  # fmt: skip
    assert totals(done)["organizations"] == {"org-a": 1}
    assert done.stderr.count("--organizations does not apply") == 1


def test_a_trial_prints_what_would_be_imported(tmp_path: Path) -> None:
    """A trial needs no database: records by outcome, days, organizations, agents, refusals."""
    run = Runner(child_environ("sqlite:////nowhere/at/all.db"))
    log = lines(
        cloudevent(1),
        cloudevent(2, subject="other", time="2024-02-29T23:59:59.9999999Z"),
        cloudevent(3, organizationid="globex"),
        cloudevent(4, type="login"),
        cloudevent(5, subject=None),
    )
    path = written(tmp_path, "log", log)
    done = run("events", "import", path, "--dry-run")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "5 records: 3 would be imported, less duplicates, 1 refused, 1 skipped (1 no issuance)",
        "days (UTC):",
        "  2024-02-29: 1",
        "  2024-03-01: 2",
        "organizations:",
        "  acme: 2",
        "  globex: 1",
        "agents:",
        "  invoice-agent of acme: 1",
        "  other of acme: 1",
        "  invoice-agent of globex: 1",
    ]
    reason = done.stderr.splitlines()[1].removeprefix(f"{path}:5: ")
    assert reason.startswith("agentId: no agent")
    assert totals(run("events", "import", path, "--dry-run", "--json")) == {
        "received": 5,
        "accepted": 3,
        "duplicates": 0,
        "refused": 1,
        "skipped": {"no issuance": 1},
        "days": {"2024-02-29": 1, "2024-03-01": 2},
        "organizations": {"acme": 2, "globex": 1},
        "agents": [
            {"organizationId": "acme", "agentId": "invoice-agent", "count": 1},
            {"organizationId": "acme", "agentId": "other", "count": 1},
            {"organizationId": "globex", "agentId": "invoice-agent", "count": 1},
        ],
        "refusals": [{"file": path, "line": 5, "reason": reason}],
    }


def test_a_trial_of_a_damaged_file_stores_nothing(sqlite_flask: Runner, tmp_path: Path) -> None:
    """Its message does not say that events are stored."""
    log = tmp_path / "log.gz"
    log.write_bytes(gzip.compress(line("e1") + line("e2"))[:-9])
    done = sqlite_flask("events", "import", str(log), "--dry-run")
    assert done.returncode == 1
    assert "would be imported" in done.stderr
    assert "stored" not in done.stderr
    assert "are stored" in sqlite_flask("events", "import", str(log)).stderr


BAD_LINES = {
    "native": (
        line("e1") + line("e2", agentId="") + b"nonsense\n" + line("e3", issuedAt="soon"),
        {
            b'"agentId": ""': b'"agentId": "a"',
            b"nonsense": line("e4").strip(),
            b"soon": AT.encode(),
        },
        ["e1"],
        ["e2", "e3", "e4"],
    ),
    "csv": (
        f'id,organizationId,agentId,issuedAt\ne1,o,a,{AT}\ne2,o,a\ne3,o,a,"{AT} "\n'
        f'e4,o,a,{AT}\n"e5",o,"",{AT}\n'.encode(),
        {b"e2,o,a": f"e2,o,a,{AT}".encode(), b'Z "': b'Z"', b'""': b"a"},
        ["e1", "e4"],
        ["e2", "e3", "e5"],
    ),
    "a document": (
        json.dumps(
            [cloudevent(1), cloudevent(2, subject=None), cloudevent(3, time=0)], indent=2
        ).encode(),
        {b'"subject": null': b'"subject": "a"', b'"time": 0': f'"time": "{AT}"'.encode()},
        ["/realms/acme A-1"],
        ["/realms/acme A-2", "/realms/acme A-3"],
    ),
    "text": (
        (
            K.console(K.message(1))
            + K.console(K.message(2, token_id=""))
            + K.console(K.message(3), "09:00")
        ).encode(),
        {b'token_id=""': b'token_id="t2"', b"09:00 ": b"2024-03-01 09:00:00 "},
        ["trrtcc:1"],
        ["t2", "trrtcc:3"],
    ),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_rejects_import_again_once_mended(sqlite_flask: Runner, tmp_path: Path, kind: str) -> None:
    """Refused records are written whole, with the header that they need, for their owner only."""
    data, mend, stored, later = BAD_LINES[kind]
    log, rejects = tmp_path / "log", tmp_path / "rejects"
    log.write_bytes(data)
    options = ("--zone", "UTC", "--json")
    done = sqlite_flask("events", "import", str(log), "--rejects", str(rejects), *options)
    assert done.returncode == 1
    assert (totals(done)["accepted"], totals(done)["refused"]) == (len(stored), len(later))
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    text = rejects.read_bytes()
    assert not any(one.encode() in text for one in stored)
    again = sqlite_flask("events", "import", str(rejects), *options)
    assert totals(again)["refused"] == len(later)
    for wrong, right in mend.items():
        assert text.count(wrong) == 1
        text = text.replace(wrong, right)
    rejects.write_bytes(text)
    mended = sqlite_flask("events", "import", str(rejects), *options)
    assert (mended.returncode, totals(mended)["accepted"]) == (0, len(later))


def test_rejects_never_replace_an_input(sqlite_flask: Runner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(line())
    (tmp_path / "link").symlink_to(log)
    for name in ("log", "link"):
        error = assert_one_clear_error(
            sqlite_flask("events", "import", str(log), "--rejects", str(tmp_path / name))
        )
        assert "name another file" in error
    assert log.read_bytes() == line()


def test_rejects_never_replace_standard_input(sqlite_url: str, tmp_path: Path) -> None:
    """``flask events import - --rejects log < log`` would empty the log before it is read."""
    log = tmp_path / "log"
    log.write_bytes(line())
    with log.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "events", "import", "-", "--rejects", str(log)],
            stdin=file,
            env=child_environ(sqlite_url),
            capture_output=True,
            check=False,
        )
    assert (done.returncode, log.read_bytes()) == (1, line())
    assert b"name another file" in done.stderr


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (["--zone", "Europe/Nowhere"], None),
        (["--organizations", "{tmp}/nowhere.toml"], None),
        (["--mapping", "{tmp}/rejects"], None),
        ([], "sqlite:////nowhere/at/all.db"),
        ([], "sqlite:///{tmp}/empty.db"),
    ],
)
def test_rejects_are_kept_if_nothing_is_read(
    sqlite_url: str, tmp_path: Path, options: list[str], url: str | None
) -> None:
    """The file of an earlier import is replaced only once options and database are usable."""
    rejects = tmp_path / "rejects"
    rejects.write_bytes(line("mended"))
    run = Runner(child_environ((url or sqlite_url).format(tmp=tmp_path)))
    given = [option.format(tmp=tmp_path) for option in options]
    done = run("events", "import", "-", "--rejects", str(rejects), *given, stdin=line())
    assert_one_clear_error(done)
    assert rejects.read_bytes() == line("mended")


def test_rejects_of_a_file_that_all_can_read(sqlite_flask: Runner, tmp_path: Path) -> None:
    """Only the owner can read the file, also if it was there before."""
    rejects = tmp_path / "rejects"
    rejects.touch(0o644)
    sqlite_flask("events", "import", "-", "--rejects", str(rejects), stdin=line(agentId=""))
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert rejects.read_bytes() == line(agentId="")


@pytest.mark.parametrize("count", [1, 2000])
def test_rejects_on_a_full_disk_are_named(sqlite_flask: Runner, count: int) -> None:
    """The import goes on and prints its summary; the error names the file of rejects, once."""
    data = line("e1") + b"".join(line(str(one), agentId="") for one in range(count)) + line("e2")
    mode = os.stat("/dev/full").st_mode
    done = sqlite_flask("events", "import", "-", "--rejects", "/dev/full", "--json", stdin=data)
    assert done.returncode == 1
    assert (totals(done)["accepted"], totals(done)["refused"]) == (2, count)
    assert done.stderr.count("/dev/full: lacks refused records: No space left on device") == 1
    assert os.stat("/dev/full").st_mode == mode


def test_a_record_above_the_limit_is_not_in_the_rejects(
    sqlite_flask: Runner, tmp_path: Path
) -> None:
    """It could not be imported again, and its text was not kept; a line says so."""
    data = line("e1", note="x" * 100_000) + line("e2", agentId="")
    done = sqlite_flask("events", "import", "-", "--rejects", str(tmp_path / "rejects"), stdin=data)
    assert "lacks 1 refused records" in done.stderr
    assert (tmp_path / "rejects").read_bytes() == line("e2", agentId="")


def test_a_file_of_another_format_is_warned_about(sqlite_flask: Runner, tmp_path: Path) -> None:
    """A wrong --format shows at once; people's sign-ins alone are of the format."""
    log = written(tmp_path, "log", lines(test_okta.record(1), test_okta.record(2)))
    done = sqlite_flask("events", "import", log, "--format", "auth0")
    assert (done.returncode, done.stderr) == (
        0,
        f"{log}: has no event of the format auth0; check --format\n",
    )
    people = written(tmp_path, "people", lines(test_entra.blob(1, "SignInLogs")))
    done = sqlite_flask("events", "import", people, "--format", "entra")
    assert (done.returncode, done.stderr) == (0, "")


def test_many_duplicates_are_warned_about(sqlite_flask: Runner, tmp_path: Path) -> None:
    """An export in which all ids are the same text looks like redeliveries of one event."""
    rows = [test_auth0.row(1, log_id="LOG_ID") for _ in range(5)]
    log = written(tmp_path, "log", json.dumps(rows))
    done = sqlite_flask("events", "import", log, "--format", "auth0", "--json")
    assert (done.returncode, totals(done)["duplicates"]) == (0, 4)
    assert done.stderr.startswith(f"{log}: 4 of 5 events are duplicates")


def test_a_doubtful_format_is_an_error(sqlite_flask: Runner, tmp_path: Path) -> None:
    """Records of two formats in one file are not guessed; other files are read."""
    both = written(tmp_path, "both", lines(test_okta.record(1), test_auth0.stream(1)))
    good = written(tmp_path, "good", lines(test_auth0.stream(2)))
    done = sqlite_flask("events", "import", both, good, "--json")
    assert done.returncode == 1
    assert "may be of auth0 or okta; choose with --format" in done.stderr
    assert totals(done)["accepted"] == 1


MAPPING = """
[acme-sso]
issued = { kind = "token" }
id = { join = ["node", "seq"] }
agent = "client"
organization = "customer"
time = { path = "ts", unit = "s" }
organizations = { c1 = "org-1" }
"""


def test_a_mapping_of_ones_own(sqlite_flask: Runner, tmp_path: Path) -> None:
    """A mapping file describes a format; its own table of organizations applies."""
    path = written(tmp_path, "acme.toml", MAPPING)
    record = {"kind": "token", "node": "n", "seq": 1, "client": "a", "customer": "c1", "ts": 1.5e9}
    data = lines(record, record | {"kind": "login"}).encode()
    for name in ((), ("--format", "acme-sso")):
        done = sqlite_flask(
            "events", "import", "-", "--mapping", path, *name, "--dry-run", "--json", stdin=data
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert totals(done)["organizations"] == {"org-1": 1}
        assert totals(done)["skipped"] == {"no issuance": 1}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--format", "xml"], "keycloak"),
        (["--zone", "Europe/Nowhere"], "--zone"),
        (["--zone", "../../etc/passwd"], "--zone"),
        (["--zone", ""], "--zone"),
        (["--mapping", "{tmp}/wrong.toml"], "wrong.toml:3: idd: is unknown"),
        (["--mapping", "{tmp}/nowhere.toml"], "nowhere.toml"),
        (["--mapping", "{tmp}/acme.toml", "--format", "other"], "has no format other"),
        (["--organizations", "{tmp}/wrong.toml"], "wrong.toml"),
        (["--rejects", "{tmp}/nowhere/rejects"], "nowhere"),
        (["--rejects", "{tmp}"], "--rejects"),
    ],
)
def test_wrong_options_are_one_clear_error(
    sqlite_flask: Runner, tmp_path: Path, options: list[str], named: str
) -> None:
    """Nothing is read before all options are right."""
    written(tmp_path, "acme.toml", MAPPING)
    written(tmp_path, "wrong.toml", "[wrong]\nid = 'a'\nidd = 'b'\n")
    given = [option.format(tmp=tmp_path) for option in options]
    done = sqlite_flask("events", "import", "-", *given, stdin=line())
    assert named in assert_one_clear_error(done)


def test_a_document_has_a_limit_of_its_own(sqlite_flask: Runner) -> None:
    """`MAX_DOCUMENT_BYTES` limits a document; each record has the limit of an event."""
    data = json.dumps([cloudevent(number) for number in range(50)]).encode()
    done = sqlite_flask(
        "events",
        "import",
        "-",
        "--json",
        stdin=data,
        MAX_EVENT_BYTES="1024",
        MAX_DOCUMENT_BYTES="4096",
    )
    assert done.returncode == 1
    assert "MAX_DOCUMENT_BYTES" in done.stderr
    assert 0 < totals(done)["accepted"] < 50
    whole = sqlite_flask("events", "import", "-", "--json", stdin=data, MAX_EVENT_BYTES="1024")
    assert totals(whole)["accepted"] + totals(whole)["duplicates"] == 50
