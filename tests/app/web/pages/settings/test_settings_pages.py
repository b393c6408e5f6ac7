"""Settings pages: who sees them, and forms that store what the API stores, without scripts."""

import html
import re
from datetime import timedelta

import pytest

from app.alerts.budgets import list_budgets, set_budget
from app.alerts.webhooks import deliveries, endpoints_of
from app.auth.api_keys import keys_of
from app.auth.share_links import VIEWS, links_of, new_link, store_link
from app.factory import create_app
from app.intake.organization_settings import options_between, settings_of
from app.storage.audit import changes, record_change
from tests.support.api_keys import with_key
from tests.support.pages import DASHBOARD, SIGNIN, Browser, place
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.statements import statements

SETTINGS = f"{DASHBOARD}/settings"
PAGES = [SETTINGS, *(f"{SETTINGS}/{name}" for name in ("budgets", "webhooks", "links", "keys"))]
PAGES.append(f"{SETTINGS}/audit")
ADMIN = "analytics:admin analytics:read events:write"
HOSTILE = "<b>\u202e'\"&x=1;"
HOOK = {"format": "standard", "url": "https://hooks.example/x", "severity": "warning"}
HOOK |= {"cooldown": "60", "digest": "weekly"}


@pytest.fixture
def admin(client):
    browser = Browser(client)
    browser.sign_in(scope=ADMIN)
    return browser


@pytest.fixture
def reading(database):
    """What a function reads of the organization."""

    def reading(read, *arguments, **more):
        with database.reading_for(TENANT) as connection:
            return read(connection, TENANT, *arguments, **more)

    return reading


def actions(database):
    with database.snapshot() as connection:
        return [(one.action, one.actor) for one in changes(connection, tenant_id=TENANT)]


def problems(answer):
    """The fields that have a problem, and the problems."""
    found = re.findall(r'<p class="problem" id="problem-(\w+)">(.*?)</p>', answer.text)
    return {name: html.unescape(text) for name, text in found}


def test_only_administrators_see_them(client):
    """A page without the scope names it, and the navigation has no link to it."""
    browser = Browser(client)
    assert place(browser.get(SETTINGS)) == SIGNIN
    browser.sign_in(scope="agents:write")
    assert SETTINGS not in browser.get(DASHBOARD).text
    for path in PAGES:
        answer = browser.get(path)
        assert answer.status_code == 403
        assert "analytics:admin" in answer.text
    other = browser.another()
    other.sign_in(scope=ADMIN)
    assert f'href="{SETTINGS}"' in other.get(DASHBOARD).text


def test_each_page_is_small_and_cheap(admin):
    """With as many lines as a page has, of ids as long as they get."""
    database = admin.app.extensions["analytics"].database
    for number in range(45):
        set_budget(database, TENANT, f"{number:03}" + "\U0001f600" * 250, "day", 5, now=NOW, by="x")
        store_link(database, new_link(TENANT, VIEWS, 7, NOW + timedelta(days=9), NOW, by="x"))
    for path in PAGES:
        with statements(database) as sent:
            page = admin.get(path)
        assert page.status_code == 200
        assert len(page.data) < 60_000, path
        assert len(sent) <= 6, path
        assert page.headers["Cache-Control"] == "no-store"
        assert "dashboard.js" not in page.text
        assert len(re.findall(r"<h1", page.text)) == 1
        assert page.text.count('aria-current="page"') == 2


def test_operators_read_and_change_nothing(client):
    """The settings of another organization are shown, without forms."""
    browser = Browser(client)
    browser.sign_in(organization_id="org-x", scope=f"{ADMIN} analytics:read:any")
    query = f"?organizationId={TENANT}"
    for path in PAGES:
        page = browser.get(path + query)
        assert page.status_code == 200, path
        assert TENANT in page.text
        assert page.text.count("<form") == 1  # to sign out
    for path in PAGES[:-1]:
        assert browser.send(SETTINGS, path + query, price="1").status_code == 403


def test_settings_are_stored_and_shown(admin, reading, database):
    fields = {"country": "de", "subdivision": "by", "dates": "2026-12-24, 2026-12-23\r\n"}
    fields |= {"price": "2.50", "currency": "eur", "lifetime": "600"}
    answer = admin.send(SETTINGS, SETTINGS, **fields)
    assert place(answer) == f"{SETTINGS}?saved=1"
    stored = reading(settings_of)
    assert (stored.days_off.country, stored.days_off.subdivision) == ("DE", "BY")
    assert [f"{day}" for day in stored.days_off.dates] == ["2026-12-23", "2026-12-24"]
    assert (stored.price.per_thousand, stored.price.currency) == (2.5, "EUR")
    page = admin.get(f"{SETTINGS}?saved=1")
    assert 'role="status"' in page.text
    for value in ('value="DE"', 'value="2.5"', 'value="600"', "2026-12-23\n2026-12-24"):
        assert value in page.text
    assert admin.send(SETTINGS, SETTINGS).status_code == 303
    assert reading(settings_of).days_off is None
    assert actions(database) == [("settings.changed", "client-1")] * 2


INVALID_SETTINGS = (
    ({"price": "-1", "currency": "EUR"}, "price"),
    ({"price": "1e3", "currency": "EUR"}, "price"),
    ({"price": "1,5", "currency": "EUR"}, "price"),
    ({"price": "1"}, "currency"),
    ({"currency": "EUR"}, "price"),
    ({"price": "1", "currency": "EURO"}, "currency"),
    ({"lifetime": "0"}, "lifetime"),
    ({"lifetime": "9" * 20}, "lifetime"),
    ({"country": "XX"}, "country"),
    ({"subdivision": "BY"}, "subdivision"),
    ({"country": "DE", "subdivision": "ZZ"}, "subdivision"),
    ({"dates": "tomorrow"}, "dates"),
    ({"dates": "2026-02-30"}, "dates"),
)


def test_an_invalid_field_keeps_what_was_typed(admin, reading):
    """The problem is beside its field, and nothing is stored."""
    for fields, field in INVALID_SETTINGS:
        answer = admin.send(SETTINGS, SETTINGS, **fields)
        assert answer.status_code == 400
        assert problems(answer).keys() == {field}
        assert 'role="alert"' in answer.text
        assert re.search(
            rf'id="field-{field}"[^>]*aria-describedby="[^"]*problem-{field}"', answer.text
        )
        assert re.search(rf'id="field-{field}"[^>]*aria-invalid="true"', answer.text)
        for value in fields.values():
            assert html.escape(value) in answer.text
    assert reading(settings_of).price is None


def test_a_form_needs_its_token(admin):
    """As every form of the pages."""
    for path in PAGES[:-1]:
        assert admin.post(path, price="1").status_code == 400
        assert admin.client.post(path, json={}, base_url=admin.base).status_code == 400


def test_a_link_is_made_shown_and_revoked(admin, reading, database):
    path = f"{SETTINGS}/links"
    answer = admin.send(path, path, views="tokens", days="7", expires="2026-05-01")
    (link,) = reading(links_of, NOW)
    assert place(answer) == f"{path}?saved=1&made={link.id}"
    assert (link.views, link.days) == (("tokens",), 7)
    assert f"{link.expires:%Y-%m-%dT%H:%M}" == "2026-05-02T00:00"
    page = admin.get(place(answer))
    url = html.unescape(re.search(r'<pre class="command">(.*?)</pre>', page.text)[1])
    assert admin.another().get(url.removeprefix("http://127.0.0.1:5000")).status_code == 200
    asked = admin.get(f"{path}?revoke={link.id}")
    assert "Revoke this link?" in asked.text
    assert place(admin.send(path, f"{path}/revoke", id=link.id)) == f"{path}?saved=1"
    assert admin.another().get(url.removeprefix("http://127.0.0.1:5000")).status_code == 404
    assert "revoked" in admin.get(path).text
    assert admin.send(path, f"{path}/revoke", id="x").status_code == 404
    assert [action for action, _ in actions(database)] == [
        "share_link.revoked",
        "share_link.created",
    ]


INVALID_LINKS = (
    ({"views": []}, "views"),
    ({"days": "0"}, "days"),
    ({"days": ""}, "days"),
    ({"expires": ""}, "expires"),
    ({"expires": "2026-04-14"}, "expires"),
    ({"expires": "2028-01-01"}, "expires"),
    ({"expires": "9999-12-31"}, "expires"),
    ({"expires": "soon"}, "expires"),
)


def test_an_invalid_link_is_refused(admin, reading):
    path = f"{SETTINGS}/links"
    for fields, field in INVALID_LINKS:
        given = {"views": ["tokens"], "days": "7", "expires": "2026-05-01"} | fields
        answer = admin.send(path, path, **given)
        assert (answer.status_code, problems(answer).keys()) == (400, {field})
    assert reading(links_of, NOW) == []


def test_a_key_is_shown_once(admin, reading, database, client):
    """In the response to the form, and nowhere else. It has scopes of the session only."""
    path = f"{SETTINGS}/keys"
    made = admin.send(path, path, scopes="events:write", note=HOSTILE, expires="2026-05-01")
    assert made.status_code == 201
    key = re.search(r"agk_\w{44}", made.text)[0]
    assert key not in admin.get(path).text
    assert HOSTILE not in admin.get(path).text
    event = {"id": "e1", "agentId": "a", "issuedAt": "2026-04-14T09:00:00Z"}
    headers = with_key(key)
    assert client.post("/api/v1/events", json=event, headers=headers).status_code == 202
    (stored,) = reading(keys_of, NOW)
    assert "agents:write" not in made.text
    assert admin.send(path, path, scopes="agents:write").status_code == 403
    assert problems(admin.send(path, path)).keys() == {"scopes"}
    assert problems(admin.send(path, path, scopes="events:write", expires="2026-04-14")).keys() == {
        "expires"
    }
    assert "Revoke this key?" in admin.get(f"{path}?revoke={stored.id}").text
    assert admin.send(path, f"{path}/revoke", id=stored.id).status_code == 303
    assert reading(keys_of, NOW)[0].revoked is not None
    assert admin.send(path, f"{path}/revoke", id="\x00").status_code == 404
    assert [action for action, _ in actions(database)] == ["key.revoked", "key.created"]


def test_budgets_are_set_changed_and_deleted(admin, reading, database):
    path = f"{SETTINGS}/budgets"

    def stored():
        found = reading(list_budgets, NOW, options_between).budgets
        return [(one.agent_id, one.period, one.tokens) for one in found]

    assert admin.send(path, path, tokens="500", period="month").status_code == 303
    assert admin.send(path, path, tokens="20", period="day", agent=HOSTILE).status_code == 303
    assert stored() == [(None, "month", 500), (HOSTILE, "day", 20)]
    page = admin.get(path)
    assert "<b>" not in page.text
    links = [
        html.unescape(one)
        for one in re.findall(r'href="([^"]+[?](?:change|delete)=[^"]*)"', page.text)
    ]
    assert len(links) == 4
    assert 'value="500"' in admin.get(links[0]).text
    assert "Delete this budget?" in admin.get(links[3]).text
    assert admin.send(path, path, tokens="600", period="month", agent="").status_code == 303
    deleted = admin.send(path, f"{path}/delete", period="day", agent=HOSTILE)
    assert (deleted.status_code, stored()) == (303, [(None, "month", 600)])
    assert admin.send(path, f"{path}/delete", period="day", agent=HOSTILE).status_code == 404
    for fields, field in (
        ({"tokens": "0", "period": "day"}, "tokens"),
        ({"tokens": "x", "period": "day"}, "tokens"),
        ({"tokens": "1", "period": "week"}, "period"),
        ({"tokens": "1", "period": "day", "agent": "\x01"}, "agent"),
    ):
        assert problems(admin.send(path, path, **fields)).keys() == {field}
    assert [action for action, _ in actions(database)] == [
        *("budget.deleted", "budget.set", "budget.set", "budget.set"),
    ]


def test_an_endpoint_is_added_tested_rotated_and_deleted(admin, reading, database):
    """Its secret is shown when it is added and when it is rotated, and never again."""
    path = f"{SETTINGS}/webhooks"
    made = admin.send(path, path, **HOOK, quiet_from="22:00", quiet_to="06:00", zone="Asia/Tokyo")
    assert made.status_code == 201, problems(made)
    secret = re.search(r"whsec_[\w+/=]+", made.text)[0]
    (endpoint,) = reading(endpoints_of)
    assert (endpoint.digest, endpoint.min_severity, endpoint.kinds) == ("weekly", "warning", None)
    assert (endpoint.quiet.begin, endpoint.quiet.zone) == ("22:00", "Asia/Tokyo")
    own = f"{path}/{endpoint.id}"
    assert "whsec_" not in admin.get(own).text
    assert "hooks.example" in admin.get(path).text
    changed = {**HOOK, "kinds": ["spike", "silence"], "enabled": "1", "digest": ""}
    assert place(admin.send(own, own, **changed)) == f"{own}?saved=1"
    (endpoint,) = reading(endpoints_of)
    assert (endpoint.kinds, endpoint.digest, endpoint.quiet) == (("spike", "silence"), None, None)
    assert admin.send(own, f"{own}/test").status_code == 303
    assert [one.event for one in reading(deliveries, endpoint.id)] == ["test"]
    assert "waiting" in admin.get(own).text
    assert "Make a new secret?" in admin.get(f"{own}?ask=rotate").text
    rotated = admin.send(own, f"{own}/rotate")
    assert re.search(r"whsec_[\w+/=]+", rotated.text)[0] != secret
    assert admin.send(own, own, **{**changed, "enabled": ""}).status_code == 303
    assert "stopped" in admin.get(path).text
    assert admin.send(own, f"{own}/test").status_code == 409
    assert "Delete this endpoint?" in admin.get(f"{own}?ask=delete").text
    assert place(admin.send(own, f"{own}/delete")) == f"{path}?saved=1"
    assert reading(endpoints_of) == []
    for gone in (own, f"{path}/x"):
        assert admin.get(gone).status_code == 404
        assert admin.send(path, f"{gone}/test").status_code == 404
    assert [action for action, _ in actions(database)] == [
        *("webhook.deleted", "webhook.changed", "webhook.rotated", "webhook.tested"),
        *("webhook.changed", "webhook.created"),
    ]


INVALID_ENDPOINTS = (
    ({"url": "http://hooks.example/x"}, "url"),
    ({"url": "https://127.0.0.1/x"}, "url"),
    ({"url": ""}, "url"),
    ({"format": "pager"}, "format"),
    ({"severity": "fatal"}, "severity"),
    ({"cooldown": "-1"}, "cooldown"),
    ({"digest": "daily"}, "digest"),
    ({"quiet_from": "22:00"}, "quiet_to"),
    ({"quiet_from": "25:00", "quiet_to": "06:00"}, "quiet_from"),
    ({"zone": "Mars"}, "zone"),
    ({"kinds": "strange"}, "kinds"),
)


def test_an_invalid_endpoint_is_refused(admin, reading):
    path = f"{SETTINGS}/webhooks"
    for fields, field in INVALID_ENDPOINTS:
        answer = admin.send(path, path, **(HOOK | fields))
        assert (answer.status_code, problems(answer).keys()) == (400, {field})
    assert reading(endpoints_of) == []


def test_too_many_endpoints_are_refused_on_the_page(admin, monkeypatch):
    monkeypatch.setattr("app.alerts.webhooks.MAX_ENDPOINTS", 1)
    path = f"{SETTINGS}/webhooks"
    assert admin.send(path, path, **HOOK).status_code == 201
    answer = admin.send(path, path, **HOOK)
    assert answer.status_code == 409
    assert "delete one first" in answer.text


def test_e_mail_needs_a_server(admin, sqlite_url):
    path = f"{SETTINGS}/webhooks"
    mail = HOOK | {"format": "email", "url": "mailto:ops@example.com"}
    assert "SMTP_URL" in admin.get(path).text
    assert admin.send(path, path, **mail).status_code == 400
    variables = {"SMTP_URL": "smtp://127.0.0.1:2525", "SMTP_FROM": "a@example.com"}
    app = create_app(make_settings(sqlite_url, **variables), clock=lambda: NOW)
    other = Browser(app.test_client())
    other.sign_in(scope=ADMIN)
    made = other.send(path, path, **mail)
    assert (made.status_code, "whsec_" in made.text) == (201, False)
    app.extensions["analytics"].database.dispose()


def test_the_audit_log_has_pages(admin, database):
    """Of the own organization, newest first; what is in it is text."""

    def record(number, tenant=TENANT):
        database.write(
            lambda connection: record_change(
                connection,
                tenant_id=tenant,
                actor=HOSTILE,
                action="settings.changed",
                subject=f"subject-{number:02}",
                details={"x": "y" * 900},
                at=NOW + timedelta(seconds=number),
            )
        )

    for number in range(30):
        record(number)
    record(99, tenant="org-b")
    path, seen = f"{SETTINGS}/audit", []
    while path:
        page = admin.get(path)
        assert "<b>" not in page.text
        assert len(page.data) < 60_000
        seen += re.findall(r"subject-(\d+)", page.text)
        found = re.search(r'rel="next" href="([^"]+)"', page.text)
        path = html.unescape(found[1]) if found else None
    assert seen == [f"{number:02}" for number in reversed(range(30))]
    for wrong in ("x", "MA", "LTE"):
        assert admin.get(f"{SETTINGS}/audit?cursor={wrong}").status_code == 400
    assert "no older changes" in admin.get(f"{SETTINGS}/audit?cursor=MQ").text
