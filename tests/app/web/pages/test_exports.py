"""Exports of cards: files named after report and range, and commands that call the API."""

import csv
import html
import io
import re
import shlex
import subprocess
from datetime import date
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest

from app.intake.agent_names import set_names
from app.reports.days import Days
from app.web.pages.exports import CALLS, export
from tests.support.findings import stored
from tests.support.pages import DASHBOARD, SIGNIN, Browser, place
from tests.support.settings import NOW, TENANT
from tests.support.tokens import bearer

DAYS = Days(date(2026, 4, 12), date(2026, 4, 14), ZoneInfo("Asia/Kolkata"))
FILES = ("tokens", "hours", "summary", "activity", "agents")
HOSTILE = "$(touch x)`touch x`'\";touch x;#&zone=a%00 \u05d0\u202e"


@pytest.fixture
def browser(client):
    browser = Browser(client, "http://127.0.0.1:3000")
    browser.sign_in()
    return browser


@pytest.fixture
def exported(app):
    def exported(report, days=DAYS, **more):
        with app.test_request_context(base_url="http://127.0.0.1:3000"):
            return export(report, days, **more)

    return exported


@pytest.fixture
def counted(database, issue, roll_up):
    issue("2026-04-12T20:00:00Z", times=3, agent="agent-1")
    issue("2026-04-14T09:30:00Z", times=2, agent="agent-2")
    roll_up()
    set_names(database, TENANT, {"agent-2": "Batch"}, NOW, by="tester")


def rows(text):
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))


def called(command, client):
    """The answer to a command, as a shell reads it."""
    words = shlex.split(command.replace("\\\n", ""))
    program, silent, address, header, value = words
    assert (program, silent, header) == ("curl", "-sS", "-H")
    assert value == "Authorization: Bearer $TOKEN"
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}" == "http://127.0.0.1:3000"
    return client.get(f"{parts.path}?{parts.query}", headers=bearer())


@pytest.mark.parametrize("report", FILES)
def test_a_file_has_the_report_and_its_range(client, browser, counted, exported, report):
    """A file is named after report and range, and has the numbers of the API's call."""
    found = exported(report)
    answer = browser.get(found.csv)
    assert (answer.status_code, answer.mimetype) == (200, "text/csv")
    name = f"{report}-2026-04-12--2026-04-14.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["Cache-Control"] == "no-store"
    told = called(found.curl, client)
    assert told.status_code == 200, told.text
    points = told.json.get("data", [told.json])
    numbers = [[str(value) for value in point.values()] for point in points]
    lines = rows(answer.text)[1:]
    if report == "summary":
        lines, numbers = [lines[0][2]], [str(told.json["total"])]
    elif report == "agents":  # the file has the names as well
        assert [line.pop(1) for line in lines] == ["", "Batch"]
    assert lines == numbers


def test_a_command_is_to_be_pasted_as_it_is(exported):
    """The command names the range, the zone and the organization, and the token by variable."""
    assert exported("tokens", organization="org b", agentId="a&b", limit=None).curl == (
        "curl -sS 'http://127.0.0.1:3000/api/v1/analytics/tokens?from=2026-04-12&to=2026-04-14"
        "&zone=Asia%2FKolkata&organizationId=org%20b&agentId=a%26b' \\\n"
        '  -H "Authorization: Bearer $TOKEN"'
    )
    utc = Days(DAYS.first, DAYS.first)
    assert exported("finding", None, findingId="0" * 32).curl.startswith(
        f"curl -sS http://127.0.0.1:3000/api/v1/analytics/findings/{'0' * 32} \\\n"
    )
    assert exported("hours", utc).csv == (
        f"{DASHBOARD}/hours.csv?from=2026-04-12&to=2026-04-12&bom=1"
    )


def test_no_id_is_a_command_of_the_shell(exported, tmp_path):
    """Ids come from events: a shell takes the whole address for one word."""
    found = exported("tokens", organization=HOSTILE, agentId=HOSTILE)
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    curl.chmod(0o755)
    shell = ["/bin/sh", "-euc", found.curl]
    environ = {"PATH": f"{curl.parent}:/bin:/usr/bin", "TOKEN": "t"}
    printed = subprocess.run(
        shell, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert printed.splitlines()[-1] == "Authorization: Bearer t"
    assert len(printed.splitlines()) == 4
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("report", sorted(CALLS))
def test_every_export_is_a_call_of_the_api(client, database, counted, exported, report):
    (finding,) = stored(database, {})
    more = {"findingId": finding.id} if report == "finding" else {}
    assert called(exported(report, **more).curl, client).status_code == 200


def test_findings_are_a_file_too(browser, database, exported):
    """The file has the numbers and the sentence of each finding that the parameters choose."""
    stored(database, {}, {"resolved_at": NOW, "resolution": "ended"})
    answer = browser.get(exported("findings").csv)
    assert "findings-2026-04-12--2026-04-14.csv" in answer.headers["Content-Disposition"]
    (head, line) = rows(answer.text)
    told = dict(zip(head, line, strict=True))
    assert (told["kind"], told["from"], told["usualLow"]) == (
        "spike",
        "2026-04-14T00:00:00Z",
        "1150",
    )
    assert told["summary"].startswith("Tue 14 Apr: 5,120 tokens")
    assert len(rows(browser.get(exported("findings", status="all").csv).text)) == 3


def test_the_files_of_0_1_0_are_where_they_were(browser, counted):
    """Links of the released dashboard still lead to files, with the names that these had."""
    for query, name in (
        ("tokens.csv?days=7&bom=1", "tokens"),
        ("activity.csv?months=3", "activity"),
        ("agents.csv?month=2026-04", "agents-2026-04"),
    ):
        answer = browser.get(f"{DASHBOARD}/{query}")
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    assert rows(answer.text) == [
        ["agentId", "name", "tokenCount"],
        ["agent-1", "", "3"],
        ["agent-2", "Batch", "2"],
    ]


def test_a_wrong_range_is_a_page_with_the_error(browser):
    """A browser that opens a file with wrong days sees what is wrong."""
    for query in ("tokens.csv?from=2026-04-12", "agents.csv?from=2026-04-14&to=2026-04-12"):
        answer = browser.get(f"{DASHBOARD}/{query}")
        assert (answer.status_code, answer.mimetype) == (400, "text/html")


def test_days_that_are_not_kept_are_refused(visit):
    """A file of days whose agents are no longer kept is refused, not empty."""
    browser = visit(AGENT_DAILY_RETENTION_DAYS="30")
    browser.sign_in()
    query = f"{DASHBOARD}/agents.csv?from=2020-01-01&to=2020-01-02"
    assert browser.get(query).status_code == 400


def test_files_need_a_session_and_are_its_organizations(client, browser, issue, roll_up, exported):
    issue("2026-04-13T12:00:00Z", tenant="org-b", agent="their-agent")
    roll_up()
    for report in (*FILES, "findings"):
        file = exported(report).csv
        assert place(browser.another().get(file)) == SIGNIN
        assert "their-agent" not in browser.get(file).text
    assert browser.get(f"{DASHBOARD}/agents.csv?from=2026-04-13&to=2026-04-13").text == (
        "agentId,name,tokenCount\r\n"
    )


def test_an_operators_file_is_of_the_organization_it_names(client, issue, roll_up, exported):
    """The scope opens the files of another organization, by name only."""
    issue("2026-04-13T12:00:00Z", tenant="org-b", agent="their-agent")
    roll_up()
    operator, other = Browser(client), Browser(client.application.test_client())
    operator.sign_in(scope="analytics:read:any", drop="organization_id")
    other.sign_in()
    file = exported("agents", organization="org-b").csv
    assert "their-agent,,1" in operator.get(file).text
    assert other.get(file).status_code == 403


def test_every_page_exports_what_it_shows(client, browser, database, counted):
    """Each page's files and commands are answered; days and an agent are those of the page."""
    (finding,) = stored(database, {})
    pages = {
        "": {"summary", "tokens", "activity", "agents", "findings"},
        "/days/2026-04-14?zone=Asia/Kolkata": {"hours", "agents"},
        "/agent?agentId=agent-2&range=7d": {"tokens"},
        f"/findings/{finding.id}": set(),
    }
    for path, reports in pages.items():
        text = browser.get(f"{DASHBOARD}{path}").text
        files = [html.unescape(file) for file in re.findall(r'href="([^"]+\.csv[^"]*)"', text)]
        assert {urlsplit(file).path.split("/")[-1] for file in files} == {
            f"{report}.csv" for report in reports
        }
        assert [browser.get(file).mimetype for file in files] == ["text/csv"] * len(files)
        commands = re.findall(r"<pre>(curl .*?)</pre>", text, re.DOTALL)
        assert len(commands) >= max(1, len(files))
        for command in commands:
            assert called(html.unescape(command), client).status_code == 200
        if "days" in path:
            assert all("from=2026-04-14&to=2026-04-14&zone=Asia%2FKolkata" in one for one in files)
        if "agent-2" in path:
            assert "agentId=agent-2" in files[0]
