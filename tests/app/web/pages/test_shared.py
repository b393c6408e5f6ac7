"""The page of a share link: chosen views and nothing else, for everybody who has the link."""

import re
from datetime import timedelta

import pytest

from app.errors import UnavailableError
from app.factory import create_app
from app.intake.agent_names import set_names
from tests.support.findings import stored
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.tokens import bearer

LINKS = "/api/v1/share-links"
ADMIN = bearer(TENANT, "analytics:admin", exp=4_102_444_800)
HEADINGS = {
    "summary": "Summary",
    "tokens": "Tokens per day",
    "activity": "When in the week",
    "agents": "Agents",
    "findings": "Needs attention",
}


@pytest.fixture
def share(client):
    """The path of a new link's page."""

    def share(*views, days=7, expires="2026-07-01T00:00:00Z", client=client):
        body = {"views": list(views or HEADINGS), "days": days, "expires": expires}
        made = client.post(LINKS, json=body, headers=ADMIN)
        assert made.status_code == 201
        return made.json["url"].removeprefix("http://localhost")

    return share


@pytest.fixture
def counted(database, issue, roll_up):
    """Tokens of this organization and of another, a name and a finding."""
    issue("2026-04-13T09:00:00Z", 1234)
    issue("2026-04-14T10:00:00Z", 2, agent="<agent-2>")
    issue("2026-04-13T09:00:00Z", 999, tenant="org-b", agent="of another")
    set_names(database, TENANT, {"agent-1": "billing <sync>"}, NOW, by="tester")
    stored(database, {})
    roll_up()


def headings(page):
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", page.text)


def test_the_page_shows_the_chosen_views(client, share, counted):
    """Without a token or a session; numbers of the own organization, names escaped."""
    page = client.get(share())
    assert page.status_code == 200
    assert headings(page) == [
        "Summary",
        "Needs attention",
        "Tokens per day",
        "When in the week",
        "Agents",
    ]
    assert "1,234" in page.text
    assert "billing &lt;sync&gt;" in page.text
    assert "&lt;agent-2&gt;" in page.text
    assert "of another" not in page.text
    assert "999" not in page.text
    for view, heading in HEADINGS.items():
        assert headings(client.get(share(view))) == [heading]
    assert "billing" not in client.get(share("tokens", "activity", "summary")).text


def test_the_page_leads_nowhere(client, share, counted):
    """No link, script or form, no cookie, no way for a search engine or a Referer."""
    page = client.get(share())
    assert not re.search(r"<(a|script|form|iframe|img|button|input)\b", page.text)
    targets = re.findall(r'(?:href|src)="([^"]*)"', page.text)
    assert all(target.startswith(("/static/", "#")) for target in targets)
    assert '<meta name="robots" content="noindex, nofollow">' in page.text
    headers = page.headers
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Set-Cookie" not in headers


def test_a_link_ends(client, share, counted, app):
    """At its end, and at once when it is revoked."""
    path = share(expires="2026-04-15T12:30:01Z")
    assert client.get(path).status_code == 200
    services = app.extensions["analytics"]
    services.clock = lambda: NOW + timedelta(seconds=1)
    gone = client.get(path)
    assert (gone.status_code, headings(gone)) == (404, [])
    assert "This link does not work" in gone.text
    other = share()
    assert client.get(other).status_code == 200
    link = other.removeprefix("/shared/").partition(".")[0]
    client.delete(f"{LINKS}/{link}", headers=ADMIN)
    assert client.get(other).status_code == 404


def test_only_the_signed_link_works(client, share, counted, monkeypatch):
    """Others are 404 without a query. Another link's signature does not fit."""
    path, other = share(), share()
    link, signature = path.rsplit(".", 1)
    changed = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    monkeypatch.setattr("app.web.pages.shared.usable_link", None)
    wrong = [link, f"{link}.", f"{link}.{changed}", f"{link}.{other.rsplit('.', 1)[1]}"]
    wrong += [f"{path}x", f"{path}/", "/shared/", "/shared/%00", f"/shared/{'A' * 9000}", "/shared"]
    for one in wrong:
        page = client.get(one)
        assert page.status_code == 404, one
        assert "Set-Cookie" not in page.headers
        assert TENANT not in page.text
    assert client.post(path).status_code == 405


def test_openings_are_counted(client, share, counted):
    path = share("tokens")
    for _ in range(3):
        client.get(path)
    client.head(path)
    (link,) = client.get(LINKS, headers=ADMIN).json["data"]
    assert (link["opened"], link["lastOpened"]) == (3, "2026-04-15T12:30:00Z")


def test_an_opening_that_cannot_be_counted_is_shown(client, share, counted, monkeypatch):
    def fail(*_arguments):
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr("app.web.pages.shared.count_opening", fail)
    assert client.get(share()).status_code == 200


def test_former_keys_sign_no_more_and_are_accepted(client, share, counted, app):
    """As when SECRET_KEY is rotated."""
    path = share()
    app.config["SECRET_KEY_FALLBACKS"] = [app.config["SECRET_KEY"]]
    app.config["SECRET_KEY"] = "another" * 8
    assert client.get(path).status_code == 200
    newer = share()
    app.config["SECRET_KEY_FALLBACKS"] = []
    assert client.get(path).status_code == 404
    assert client.get(newer).status_code == 200


def test_frames_are_allowed_by_setting(sqlite_url):
    """Named origins only, and on this page alone."""
    origins = "https://intranet.example https://wiki.example:8443"
    app = create_app(make_settings(sqlite_url, SHARE_FRAME_ANCESTORS=origins), clock=lambda: NOW)
    client = app.test_client()
    body = {"views": ["tokens"], "days": 1, "expires": "2026-07-01T00:00:00Z"}
    url = client.post(LINKS, json=body, headers=ADMIN).json["url"]
    policy = client.get(url).headers["Content-Security-Policy"]
    assert policy.endswith(f"frame-ancestors {origins}")
    assert (
        "'none'" in client.get("/signin").headers["Content-Security-Policy"].split("ancestors")[1]
    )
    app.extensions["analytics"].database.dispose()


def test_a_link_has_a_rate_limit_of_its_own(sqlite_url):
    """So that it does not use up its organization's."""
    app = create_app(make_settings(sqlite_url, RATE_LIMIT="3/minute"), clock=lambda: NOW)
    client = app.test_client()
    body = {"views": ["tokens"], "days": 1, "expires": "2026-07-01T00:00:00Z"}
    url = client.post(LINKS, json=body, headers=ADMIN).json["url"]
    assert [client.get(url).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert client.get(LINKS, headers=ADMIN).status_code == 200
    app.extensions["analytics"].database.dispose()


def test_the_log_has_no_signature(client, share, counted, caplog):
    path = share()
    with caplog.at_level("INFO"):
        client.get(path)
    assert caplog.records
    signature = path.rsplit(".", 1)[1]
    assert not any(signature in repr(vars(record)) for record in caplog.records)


def test_days_that_are_not_kept_are_named(sqlite_url):
    """The rest of the page is shown."""
    app = create_app(make_settings(sqlite_url, HOURLY_RETENTION_DAYS="31"), clock=lambda: NOW)
    client = app.test_client()
    body = {"views": list(HEADINGS), "days": 366, "expires": "2026-07-01T00:00:00Z"}
    url = client.post(LINKS, json=body, headers=ADMIN).json["url"]
    page = client.get(url)
    assert (page.status_code, len(headings(page))) == (200, 5)
    assert page.text.count("These days have no hours.") == 1
    app.extensions["analytics"].database.dispose()
