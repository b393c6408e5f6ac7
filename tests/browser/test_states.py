"""The page's messages when there is nothing, or nothing new."""

import json
import shutil
import subprocess
from datetime import timedelta

import pytest

from tests.support.tokens import token


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl; apt install curl")
def test_the_command_of_the_empty_page_works_as_it_stands_there(person, site):
    person.sign_in()
    assert person.texts("#empty") == ["No tokens yet"]
    command = person.texts("pre")[0]
    done = subprocess.run(
        ["sh", "-c", command],
        env={"TOKEN": token(scope="events:write"), "PATH": "/usr/bin:/bin", "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"received": 1, "accepted": 1, "duplicates": 0}
    site.roll_up()
    person.browser.refresh()
    assert person.texts(".tiles > :first-child .n") == ["1"]
    assert person.texts("#days .small") == ["first day: today"]


def test_the_empty_page_has_three_numbered_ways_in(person, site):
    """Each way is a command with a button that copies it, also after a refresh."""
    person.sign_in()
    assert person.texts(".first li > b") == ["1", "2", "3"]
    commands = person.texts(".first pre")
    for command, start in zip(
        commands, ("curl", "flask events import --organization org-a", "curl"), strict=True
    ):
        assert command.startswith(start)
    assert "/api/v1/events" in commands[0]
    assert "/api/v1/keys" in commands[2]
    person.evaluate("refresh()")
    assert person.texts(".first .copied button") == ["Copy"] * 3


def test_the_empty_page_turns_into_the_overview_by_itself(person, site):
    """It does so even if a command was selected or its button has the focus."""
    person.sign_in()
    person.evaluate("getSelection().selectAllChildren(document.querySelector('pre'))")
    person.evaluate("document.querySelector('.copied button').focus()")
    site.issue()
    site.roll_up()
    person.evaluate("refresh()")
    person.until(lambda: person.texts(".tiles > :first-child .n") == ["1"])
    assert person.all("[data-card=empty]") == []


def test_before_the_first_run_the_page_says_so(serve, sit_down):
    site = serve()
    site.issue()
    person = sit_down(site)
    person.sign_in()
    assert person.texts(".fresh") == ["No events have been counted yet. A run starts every 15 s."]


def test_old_numbers_are_announced_and_new_ones_are_not(person, filled):
    filled.now += timedelta(seconds=45)
    person.sign_in()
    assert person.all("[role=alert]") == []
    filled.now += timedelta(minutes=10)
    person.browser.refresh()
    (alert,) = person.texts("[role=alert]")
    assert alert.startswith("Nothing was counted for 10 min. All that came in up to 12:30:00 UTC")
    assert "A run should start every 15 s." in alert
    filled.roll_up()
    person.browser.refresh()
    assert person.all("[role=alert]") == []


def test_an_open_page_says_that_its_numbers_are_old(person, filled):
    """The sentence comes and goes with a refresh, and keeps the other cards."""
    person.sign_in()
    days = person.one("[data-card=days]")
    filled.now += timedelta(minutes=10)
    person.evaluate("refresh()")
    person.until(lambda: person.all("[role=alert]"))
    filled.roll_up()
    person.evaluate("refresh()")
    person.until(lambda: not person.all("[role=alert]"))
    assert person.one("[data-card=days]") == days


def test_a_page_without_permission_offers_to_sign_in_as_another(person, filled):
    person.sign_in()
    person.open("/dashboard?organizationId=org-b")
    person.expect("status of 403")
    assert person.texts("h1") == ["No permission"]
    assert "analytics:read:any" in person.texts("main")[0]
    assert "org-a" in person.texts("main")[0]
    person.press("form button")
    person.wait_for("/signin")


def test_a_wrong_choice_leads_to_a_page_with_a_way_back(person, filled):
    person.sign_in()
    person.open("/dashboard?zone=Mars")
    assert person.texts("h1") == ["Bad Request"]
    person.expect("status of 400")
    person.press("main a")
    person.wait_for("/dashboard")
