"""Messages: about a usual finding, and about one with hostile and long texts."""

from datetime import UTC, datetime

import pytest

from app.alerts.payloads import document_message, finding_message
from app.storage.outbox import OPENED, Document

AT = datetime(2026, 4, 14, 11, 0, 30, tzinfo=UTC)
LINK = "https://analytics.example.com/dashboard/findings/" + "0" * 32
HOSTILE = (
    "<!channel> <@U123> <https://evil.example|x> @everyone *b* _i_ `c` [x](https://evil.example)"
    " <at>All</at> <script>alert(1)</script> \r\nBcc: x@evil.example\u202e \U0001f600 &amp;"
)


def finding(name="billing-sync", agents=1):
    share = {"agentId": "agent-1", "agentName": name, "observed": 9, "usual": 1, "share": 0.5}
    return {
        "id": "0" * 32,
        "kind": "retry_loop",
        "severity": "warning",
        "status": "open",
        "openedAt": "2026-04-14T11:00:00Z",
        "detectedAt": "2026-04-14T11:00:30Z",
        "updatedAt": "2026-04-14T11:00:30Z",
        "resolvedAt": None,
        "resolution": None,
        "from": "2026-04-14T00:00:00Z",
        "to": "2026-04-14T11:00:00Z",
        "observed": 5120,
        "usual": {"low": 1150, "typical": 1390, "high": 1640},
        "scope": "agent",
        "agents": [share] * agents,
        "summary": f"Tue 14 Apr: {name} was issued 5,120 tokens.",
        "advice": f"Check whether {name} asks again after errors.",
        "acknowledged": False,
        "acknowledgedBy": None,
        "note": None,
    }


def message(tenant="org-a", link=LINK, **options):
    return finding_message("0.1.w", OPENED, AT, tenant, finding(**options), link)


def every_message():
    long = "\U0001f600" * 255
    wide = Document("s" * 5000, ("\U0001f600" * 900 + "\n\n") * 50, data={"tokens": 5})
    return {
        "usual": message(),
        "without a link": message(link=None),
        "hostile": message(HOSTILE, name=HOSTILE),
        "long": message(long, name=long * 20, agents=5),
        "document": document_message("d.w", "digest.week", AT, "org-a", Document("Week", "Text")),
        "wide": document_message("d.w", "digest.week", AT, long, wide),
    }


@pytest.fixture(params=list(every_message()))
def each(request):
    return every_message()[request.param]
