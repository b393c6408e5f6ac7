"""Payloads: a message in the format of its receiver: ours, Slack's or Microsoft Teams'.

Names of agents are chosen by others. So Slack and Teams get them as plain text, in elements that
interpret no markup: a name cannot make a link or mention a channel.

- Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/ and
  https://docs.slack.dev/reference/block-kit/blocks/
- Teams: an Adaptive Card 1.4 (https://adaptivecards.io/schemas/1.4.0/adaptive-card.json) in a
  message for a workflow, https://learn.microsoft.com/connectors/teams/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.storage.outbox import OPENED, RESOLVED, UPDATED, Document

CARD_TYPE = "application/vnd.microsoft.card.adaptive"
CARD_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"
# A header of Slack has 150 characters, another text 3,000. A message to Teams has 28 kB in all, so
# that these texts fit even if each character takes four bytes.
_TITLE, _TEXT, _FACT, _FALLBACK = 150, 1500, 300, 3000
# Texts of documents, as digests, are longer than sentences.
_PARAGRAPHS = 3
_VERBS = {OPENED: "Opened", UPDATED: "Updated", RESOLVED: "Resolved"}
# Kinds whose words are not those of their names.
_WORDS = {
    "level_shift": "new level",
    "token_waste": "avoidable tokens",  # nosec B105  # the name of a kind
}


@dataclass(frozen=True)
class Message:
    """What a message says.

    Attributes:
        kind: as ``finding.opened``.
        created: when the change was stored.
        data: for programs, as JSON takes it.
        title, text, facts: for people; ``text`` has paragraphs, separated by empty lines.
        link: a page of the dashboard.
        html: a whole document for e-mail, if there is one.
    """

    id: str
    kind: str
    created: datetime
    data: Mapping[str, Any]
    title: str
    text: str
    facts: tuple[tuple[str, str], ...] = ()
    link: str | None = None
    html: str | None = None


def finding_message(  # noqa: PLR0913, PLR0917 - which event, of which finding, and its link
    message_id: str,
    kind: str,
    created: datetime,
    tenant_id: str,
    finding: Mapping[str, Any],
    link: str | None,
) -> Message:
    """The message about a finding.

    Args:
        finding: as the API's JSON has it.
    """
    what = _WORDS.get(finding["kind"], finding["kind"].replace("_", " "))
    facts = [
        ("Organization", tenant_id),
        ("Severity", finding["severity"]),
        ("Period", f"{_minute(finding['from'])} to {_minute(finding['to'])} UTC"),
        ("Tokens", _tokens(finding)),
    ]
    if finding["agents"]:
        names = (one["agentName"] or one["agentId"] for one in finding["agents"])
        facts.append(("Agents", ", ".join(shorten(name, 50) for name in names)))
    if finding["resolution"]:
        facts.append(("Resolution", finding["resolution"]))
    return Message(
        message_id,
        kind,
        created,
        {"organizationId": tenant_id, "finding": finding},
        f"{_VERBS.get(kind, kind)}: {what} ({finding['severity']})",
        f"{finding['summary']}\n\n{finding['advice']}",
        tuple(facts),
        link,
    )


def document_message(
    message_id: str, kind: str, created: datetime, tenant_id: str, document: Document
) -> Message:
    """The message of a document, as a digest or a test."""
    data = {
        "organizationId": tenant_id,
        "subject": document.subject,
        "text": document.text,
        **({} if document.data is None else {"data": document.data}),
    }
    return Message(
        message_id,
        kind,
        created,
        data,
        document.subject,
        document.text,
        (("Organization", tenant_id),),
        html=document.html,
    )


def standard(message: Message) -> bytes:
    """Our own payload: ``type``, ``timestamp`` and ``data``, as Standard Webhooks suggests."""
    return msgspec.json.encode(
        {"type": message.kind, "timestamp": message.created, "data": message.data}
    )


def slack(message: Message) -> bytes:
    """A message for an incoming webhook of Slack. Only ``text`` interprets markup there."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(shorten(message.title, _TITLE))},
        *({"type": "section", "text": _plain(text)} for text in _texts(message)),
    ]
    if message.facts:
        fields = [_plain(shorten(f"{name}: {value}", _FACT)) for name, value in message.facts]
        blocks.append({"type": "section", "fields": fields})
    if message.link is not None:
        button = {"type": "button", "text": _plain("Show"), "url": message.link}
        blocks.append({"type": "actions", "elements": [button]})
    fallback = slack_escaped(shorten(f"{message.title}. {message.text}", _TEXT))
    return msgspec.json.encode({"text": fallback[:_FALLBACK], "blocks": blocks})


def teams(message: Message) -> bytes:
    """A message for Microsoft Teams. Runs of rich text interpret no markup there."""
    body: list[dict[str, Any]] = [
        _rich(shorten(message.title, _TITLE), size="large", weight="bolder"),
        *(_rich(text) for text in _texts(message)),
    ]
    for name, value in message.facts:
        body.append(_rich(shorten(f"{name}: {value}", _FACT), isSubtle=True, spacing="small"))
    card: dict[str, Any] = {
        "$schema": CARD_SCHEMA,
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": shorten(message.title, _TITLE),
        "body": body,
    }
    if message.link is not None:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Show", "url": message.link}]
    attachment = {"contentType": CARD_TYPE, "contentUrl": None, "content": card}
    return msgspec.json.encode({"type": "message", "attachments": [attachment]})


def slack_escaped(text: str) -> str:
    """Text without Slack's control sequences, as ``<!channel>``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, longest: int) -> str:
    """The text, with an ellipsis at its end if it is too long. Control characters are removed."""
    clean = "".join(one for one in text if one == "\n" or one.isprintable())
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def _texts(message: Message) -> list[str]:
    """The paragraphs, joined to few texts within the limits."""
    joined: list[str] = []
    for paragraph in filter(None, map(str.strip, message.text.split("\n\n"))):
        if joined and len(joined[-1]) + len(paragraph) + 2 <= _TEXT:
            joined[-1] += f"\n\n{paragraph}"
        else:
            joined.append(paragraph)
    return [shorten(text, _TEXT) for text in joined[:_PARAGRAPHS]]


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _rich(text: str, *, spacing: str = "medium", **style: object) -> dict[str, Any]:
    run = {"type": "TextRun", "text": text, **style}
    return {"type": "RichTextBlock", "spacing": spacing, "inlines": [run]}


def _minute(instant: str) -> str:
    return instant[:16].replace("T", " ")


def _tokens(finding: Mapping[str, Any]) -> str:
    usual = finding["usual"]
    observed = f"{finding['observed']:,}"
    return observed if usual is None else f"{observed}, usually {usual['typical']:,}"
