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
    (command,) = person.texts("pre")
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
    assert person.texts(".figure strong") == ["1"]
    assert person.texts(".agents tbody th") == ["My agent my-agent"]


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
    assert alert.startswith("These numbers are old. A run should start every 15 s")
    filled.roll_up()
    person.browser.refresh()
    assert person.all("[role=alert]") == []


def test_a_wrong_choice_leads_to_a_page_with_a_way_back(person, filled):
    person.sign_in()
    person.open("/dashboard?zone=Mars")
    assert person.texts("h1") == ["Bad Request"]
    person.expect("status of 400")
    person.press("main a")
    person.wait_for("/dashboard")
