"""The page of all organizations: who sees it, its orders, pages, search, file and links."""

import csv
import html
import io
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.findings import stored
from tests.support.organizations import make_list
from tests.support.pages import DASHBOARD, HTML, SIGNIN, Browser, place

LIST = f"{DASHBOARD}/organizations"
HOSTILE = "<b>\u202e\u200b'\"&x=1;#?/"
OPERATOR = {"scope": "analytics:read:any", "drop": "organization_id"}


@pytest.fixture
def operator(client):
    browser = Browser(client)
    browser.sign_in(**OPERATOR)
    return browser


@pytest.fixture
def three(database, issue, roll_up):
    """Organization b has grown, one with a hostile id is new, and a has no recent tokens."""
    for tenant, day, count in (("b", "04-01", 2), ("b", "04-08", 4), (HOSTILE, "04-14", 9)):
        issue(f"2026-{day}T09:00", count, tenant=tenant)
    issue("2025-04-14T09:00", tenant="a")
    stored(database, {}, {}, tenant="b")
    roll_up()
    make_list(database)


def shown(answer):
    """The organizations of the page, in its order."""
    assert answer.status_code == 200, answer.text
    return [
        parse_qs(urlsplit(html.unescape(link)).query)["organizationId"][0]
        for link in re.findall(r'class="who"><a href="([^"]+)"', answer.text)
    ]


@pytest.mark.usefixtures("three")
def test_the_page_lists_every_organization(operator):
    """With totals, and each with its numbers; text of an id is never markup."""
    page = operator.get(f"{LIST}?range=7d")
    assert shown(page) == [HOSTILE, "b", "a"]
    assert "<b>" not in page.text
    assert re.search(r'<dd class="n">13</dd>', page.text)
    row = page.text.split('class="who"')[2].split("</tr>")[0]
    for cell in ('<td class="num c-n">4</td>', "30.8", "100.0", "8 Apr 2026", ">2</span>"):
        assert cell in row
    assert "new</span>" in page.text.split('class="who"')[1]
    assert shown(operator.get(f"{LIST}?range=12m")) == [HOSTILE, "b", "a"]


@pytest.mark.usefixtures("three")
def test_the_heads_sort_in_both_directions(operator):
    """One head is sorted; its link turns the order around, and the others begin their own."""
    for query, order, direction in (
        ("", [HOSTILE, "b", "a"], "descending"),
        ("?order=asc", ["a", "b", HOSTILE], "ascending"),
        ("?sort=id", [HOSTILE, "a", "b"], "ascending"),
        ("?sort=openFindings", ["b", HOSTILE, "a"], "descending"),
    ):
        page = operator.get(f"{LIST}{query}")
        assert shown(page) == order
        assert re.findall(r'aria-sort="(\w+)"', page.text) == [direction]
    turned = re.search(r'aria-sort="\w+"><a href="([^"]+)"', page.text)
    assert shown(operator.get(html.unescape(turned[1]))) == [HOSTILE, "a", "b"]


@pytest.mark.usefixtures("three")
def test_pages_and_searches_keep_the_choices(operator, monkeypatch):
    monkeypatch.setattr("app.web.pages.organizations.SIZE", 1)
    page, seen = operator.get(f"{LIST}?sort=id&range=13w&page=9"), []
    for number in range(1, 4):
        seen += shown(page)
        assert f"{number}\N{EN DASH}{number} of 3" in page.text
        following = re.search(r'rel="next" href="([^"]+)"', page.text)
        page = operator.get(html.unescape(following[1])) if following else None
    assert (seen, page) == ([HOSTILE, "a", "b"], None)
    assert shown(operator.get(f"{LIST}?q=A&sort=change")) == ["a"]
    nothing = operator.get(f"{LIST}?q=%3Cscript%3E")
    assert "&lt;script&gt;" in nothing.text
    assert "<script>" not in nothing.text
    for bad in ("cursor=x", "sort=x", "order=x", "q=%00", "range=1d"):
        assert operator.get(f"{LIST}?{bad}").status_code == 400


@pytest.mark.usefixtures("three")
def test_each_organization_leads_to_its_pages(operator):
    """They are the pages of the organization, with a banner that says whose they are."""
    link = re.search(r'class="who"><a href="([^"]+)"', operator.get(f"{LIST}?q=%3Cb").text)[1]
    page = operator.get(html.unescape(link))
    assert page.status_code == 200
    banner = re.search(r'<p class="whose".*?</p>', page.text)[0]
    assert "&lt;b&gt;" in banner
    assert LIST in banner
    assert f'href="{LIST}' in page.text


@pytest.mark.usefixtures("three")
def test_the_file_has_the_organizations_of_the_page(operator):
    answer = operator.get(f"{LIST}.csv?range=7d&sort=id&bom=1")
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert [row["tenantId"] for row in rows] == [HOSTILE, "a", "b"]
    name = 'attachment; filename="organizations-2026-04-08--2026-04-14.csv"'
    assert answer.headers["Content-Disposition"] == name
    assert len(operator.get(f"{LIST}.csv?q=b").text.splitlines()) == 3


@pytest.mark.usefixtures("three")
def test_only_an_operator_sees_the_list(client, operator):
    """Neither a session without the scope nor one that names an organization gets it."""
    assert place(Browser(client).another().get(LIST)) == SIGNIN
    plain = operator.another()
    plain.sign_in(scope="analytics:admin agents:write analytics:read")
    for path in (LIST, f"{LIST}.csv", f"{LIST}?organizationId=b"):
        answer = plain.get(path)
        assert answer.status_code == 403
        assert HOSTILE not in answer.text
    assert LIST not in plain.get(DASHBOARD).text


@pytest.mark.usefixtures("three")
def test_an_operator_without_an_organization_begins_here(operator):
    """Pages of an own organization lead to the list, and forms change nothing."""
    for path in (DASHBOARD, f"{DASHBOARD}?range=7d", f"{DASHBOARD}/tokens.csv"):
        assert place(operator.get(path)) == LIST
    assert operator.get(f"{DASHBOARD}?organizationId=b").status_code == 200


@pytest.mark.usefixtures("three")
def test_a_refresh_is_the_cards_or_304(operator):
    cards = operator.get(f"{LIST}?live=1")
    assert "<html" not in cards.text
    known = HTML | {"If-None-Match": cards.headers["ETag"]}
    assert operator.get(f"{LIST}?live=1", headers=known).status_code == 304


def test_before_the_first_list_the_page_says_so(operator):
    assert "not complete yet" in operator.get(LIST).text
