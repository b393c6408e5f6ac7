"""JSON Schemas of the messages that Slack and Microsoft Teams take: of the elements that are used.

Written from the published references:

- https://docs.slack.dev/reference/block-kit/blocks/ (header, section, actions), with
  https://docs.slack.dev/reference/block-kit/composition-objects/text-object/ and
  https://docs.slack.dev/reference/block-kit/block-elements/button-element/
- https://adaptivecards.io/schemas/1.4.0/adaptive-card.json, inside of the message that
  https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
  describes. Its limit is 28 kB in all.

Unknown members are refused, which the services may not do.
"""

from typing import Any

TEAMS_BYTES = 28_000


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _plain(longest: int) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": longest}
    return _object({"type": {"const": "plain_text"}, "text": text}, {"emoji": {"type": "boolean"}})


_URL = {"type": "string", "pattern": "^https?://", "maxLength": 3000}
_BUTTON = _object({"type": {"const": "button"}, "text": _plain(75), "url": _URL})
_BLOCKS = [
    _object({"type": {"const": "header"}, "text": _plain(150)}),
    _object({"type": {"const": "section"}, "text": _plain(3000)}),
    _object(
        {
            "type": {"const": "section"},
            "fields": {"type": "array", "items": _plain(2000), "minItems": 1, "maxItems": 10},
        }
    ),
    _object(
        {
            "type": {"const": "actions"},
            "elements": {"type": "array", "items": _BUTTON, "minItems": 1, "maxItems": 25},
        }
    ),
]
SLACK = _object(
    {
        "text": {"type": "string", "minLength": 1, "maxLength": 40_000},
        "blocks": {"type": "array", "items": {"oneOf": _BLOCKS}, "maxItems": 50},
    }
)

_SPACING = {"enum": ["default", "none", "small", "medium", "large", "extraLarge", "padding"]}
_RUN = _object(
    {"type": {"const": "TextRun"}, "text": {"type": "string"}},
    {
        "size": {"enum": ["default", "small", "medium", "large", "extraLarge"]},
        "weight": {"enum": ["default", "lighter", "bolder"]},
        "isSubtle": {"type": "boolean"},
    },
)
_RICH = _object(
    {
        "type": {"const": "RichTextBlock"},
        "inlines": {"type": "array", "items": _RUN, "minItems": 1},
    },
    {"spacing": _SPACING},
)
_OPEN = _object({"type": {"const": "Action.OpenUrl"}, "url": _URL}, {"title": {"type": "string"}})
CARD = _object(
    {
        "type": {"const": "AdaptiveCard"},
        "version": {"const": "1.4"},
        "body": {"type": "array", "items": _RICH, "minItems": 1},
    },
    {
        "$schema": {"const": "http://adaptivecards.io/schemas/adaptive-card.json"},
        "fallbackText": {"type": "string"},
        "actions": {"type": "array", "items": _OPEN},
    },
)
TEAMS = _object(
    {
        "type": {"const": "message"},
        "attachments": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": _object(
                {
                    "contentType": {"const": "application/vnd.microsoft.card.adaptive"},
                    "contentUrl": {"type": "null"},
                    "content": CARD,
                }
            ),
        },
    }
)
