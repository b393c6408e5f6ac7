"""Payloads: each is of its service's schema, within its limits, and shows names as plain text."""

import json

from jsonschema import Draft202012Validator

from app.alerts.payloads import slack, standard, teams
from tests.app.alerts.conftest import HOSTILE, LINK, message
from tests.app.alerts.schemas import SLACK, TEAMS, TEAMS_BYTES


def test_ours_has_type_time_and_the_finding_of_the_api():
    body = json.loads(standard(message()))
    assert list(body) == ["type", "timestamp", "data"]
    assert (body["type"], body["timestamp"]) == ("finding.opened", "2026-04-14T11:00:30Z")
    assert body["data"]["organizationId"] == "org-a"
    assert body["data"]["finding"]["kind"] == "retry_loop"


def test_a_message_to_slack_is_of_its_schema(each):
    Draft202012Validator(SLACK).validate(json.loads(slack(each)))


def test_a_message_to_teams_is_of_its_schema_and_size(each):
    body = teams(each)
    assert len(body) <= TEAMS_BYTES
    Draft202012Validator(TEAMS).validate(json.loads(body))


def test_a_name_cannot_mention_or_link_in_slack():
    """The fallback interprets control sequences, which are escaped. Blocks interpret nothing."""
    body = json.loads(slack(message(name=HOSTILE)))
    assert not {"<", ">"} & set(body["text"])
    assert "&lt;!channel&gt;" in body["text"]
    texts = json.dumps(body["blocks"])
    assert "mrkdwn" not in texts
    assert "<!channel>" in texts


def test_a_name_cannot_make_markup_in_teams():
    """Only runs of rich text have a name in them."""
    card = json.loads(teams(message(name=HOSTILE)))["attachments"][0]["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert "entities" not in card.get("msteams", {})


def test_people_read_what_they_need():
    """Title, sentence, advice, facts and a link."""
    for write in (slack, teams):
        text = write(message()).decode()
        for part in ("Opened: retry loop (warning)", "5,120 tokens", "Check whether", LINK):
            assert part in text
        assert "Organization: org-a" in text
