"""Reports as CSV, from the API and from the dashboard."""

import csv
import io

import pytest

from app.web.csv_export import csv_text
from tests.support.tokens import bearer

API = "/api/v1/analytics"
REPORTS = {
    "tokens": ("date,count", "tokens.csv"),
    "agents/activity": ("dow,hour,count", "activity.csv"),
    "agents": ("agentId,tokenCount", "agents.csv"),
    "tokens/hourly": ("hour,count", "hours.csv"),
}


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.fixture
def counted(client, issue, roll_up):
    issue("2026-04-14T09:30:00Z", times=3, agent="=cmd|' /C calc'!A0")
    issue("2026-04-15T10:00:00Z", agent='comma, "quote"')
    roll_up()
    return client


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize(
    ("ending", "accept"), [("", "text/csv"), (".csv", "*/*"), (".csv", "application/json")]
)
def test_a_report_is_csv_by_header_or_by_path(counted, report, ending, accept):
    header, name = REPORTS[report]
    answer = counted.get(f"{API}/{report}{ending}", headers=bearer() | {"Accept": accept})
    assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert {"Accept", "Authorization"} <= set(answer.vary)
    assert answer.text.startswith(f"{header}\r\n")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "application/*", ""])
def test_whoever_does_not_ask_for_csv_gets_json(counted, accept):
    answer = counted.get(f"{API}/tokens", headers=bearer() | {"Accept": accept})
    assert answer.mimetype == "application/json"
    assert "Content-Disposition" not in answer.headers


@pytest.mark.parametrize("report", REPORTS)
def test_the_numbers_are_those_of_the_json(counted, report):
    points = counted.get(f"{API}/{report}", headers=bearer()).json["data"]
    lines = rows(counted.get(f"{API}/{report}.csv", headers=bearer()).text)
    told = [[str(value) for value in point.values()] for point in points]
    assert lines[0] == list(points[0])
    assert [[cell.removeprefix("'") for cell in line] for line in lines[1:]] == told


@pytest.mark.parametrize("report", REPORTS)
def test_a_file_is_named_after_the_days_asked_for(counted, report):
    """With ``from`` and ``to`` the file's name has these days."""
    days = "from=2026-04-14&to=2026-04-15"
    answer = counted.get(f"{API}/{report}.csv?{days}", headers=bearer())
    name = REPORTS[report][1].replace(".csv", "-2026-04-14--2026-04-15.csv")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_the_status_takes_no_days(counted):
    """Unknown parameters are ignored, so they are not in the name of the status either."""
    answer = counted.get(f"{API}/status.csv?from=x&to=2026-04-15", headers=bearer())
    assert answer.headers["Content-Disposition"] == 'attachment; filename="status.csv"'


def test_a_file_without_lines_has_its_header(client):
    answer = client.get(f"{API}/agents.csv", headers=bearer("nobody"))
    assert answer.text == "agentId,tokenCount\r\n"


def test_an_agents_id_is_no_formula(counted):
    text = counted.get(f"{API}/agents.csv", headers=bearer()).text
    assert rows(text)[1:] == [["'=cmd|' /C calc'!A0", "3"], ['comma, "quote"', "1"]]


SIGNS = ["=", "+", "-", "@", "\t", "\r", "\n", "\x00", "\x9f"]
# Full-width, small, raised and lowered forms, and the minus sign.
SIGNS += [*"\uff1d\uff0b\uff0d\uff20", *"\ufe66\ufe62\ufe63\ufe6b", *"\u207c\u207b\u208a\u2212"]


@pytest.mark.parametrize("begin", SIGNS)
def test_no_text_begins_as_a_formula(begin):
    assert rows(csv_text(["x"], [[f"{begin}1"]]))[1] == [f"'{begin}1"]


@pytest.mark.parametrize("begin", SIGNS)
def test_no_part_after_a_semicolon_is_a_formula(begin):
    """Where semicolons separate cells, a part of a text is a cell of its own."""
    text = f"a;{begin}1;b;{begin}{begin}2"
    escaped = f"a;'{begin}1;b;'{begin}{begin}2"
    assert rows(csv_text(["x", "y"], [["id", text]]))[1] == ["id", escaped]
    assert rows(csv_text(["x"], [[f'a;""{begin}1']]))[1] == [f'a;\'""{begin}1']


@pytest.mark.parametrize(
    "text", ["a=1", "'", " =1", "1-2", "ü", "\U0001f511", "", "a;b", ";", "a; =1", '"=1']
)
def test_other_texts_stay_as_they_are(text):
    assert rows(csv_text(["x", "y"], [[text, 1]]))[1] == [text, "1"]


def test_numbers_are_not_texts_and_nothing_is_an_empty_cell():
    assert csv_text(["a", "b", "c"], [[-1, None, "x"]]) == "a,b,c\r\n-1,,x\r\n"


def test_the_api_counts_the_cells_that_it_escaped(counted):
    """A program that joins by id sees in a header whether a text differs from the stored one."""
    assert counted.get(f"{API}/agents.csv", headers=bearer()).headers["X-Escaped-Cells"] == "1"
    assert counted.get(f"{API}/tokens.csv", headers=bearer()).headers["X-Escaped-Cells"] == "0"
    assert "X-Escaped-Cells" not in counted.get(f"{API}/agents", headers=bearer()).headers


@pytest.mark.parametrize("report", REPORTS)
def test_a_byte_order_mark_stands_in_front_on_request(counted, report):
    """A spreadsheet reads UTF-8 only with a byte order mark; a program does not expect one."""
    plain = counted.get(f"{API}/{report}.csv", headers=bearer())
    marked = counted.get(f"{API}/{report}.csv?bom=1", headers=bearer())
    assert marked.data == b"\xef\xbb\xbf" + plain.data
    assert marked.headers["ETag"] != plain.headers["ETag"]
    for wrong in ("bom=0", "bom=", "bom=true", "bom=1&bom=1"):
        answer = counted.get(f"{API}/{report}.csv?{wrong}", headers=bearer())
        assert (answer.status_code, answer.json["details"]) == (400, {"parameter": "bom"})
    assert counted.get(f"{API}/{report}?bom=1", headers=bearer()).json["data"]


def test_an_unchanged_file_is_not_sent_again(counted):
    first = counted.get(f"{API}/tokens.csv", headers=bearer())
    known = bearer() | {"If-None-Match": first.headers["ETag"]}
    again = counted.get(f"{API}/tokens.csv", headers=known)
    assert (again.status_code, again.data) == (304, b"")
    # The same numbers as JSON are another text.
    assert counted.get(f"{API}/tokens", headers=known).status_code == 200


def test_a_wrong_parameter_is_told_as_everywhere(counted):
    answer = counted.get(f"{API}/tokens.csv?days=0", headers=bearer())
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert counted.get(f"{API}/tokens.csv").status_code == 401
