"""Demonstration story: what each day of the demonstration holds, the same on every machine.

A day's events depend on its date and on the story's first day only. So a second load delivers the
same events, and each event is stored once. The story leads up to the day on which the demonstration
is first loaded, its 200th. Later days go on, and tell it again each 200 days.
"""

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from app.intake.events import Event

ORGANIZATION = "org-0a1b2c3d-e4f5-6789-abcd-ef0123456789"
DAYS = 200
PREFIX = "demo-"
NAMES = (
    *("billing-sync", "nightly-backup", "ci-deployer", "invoice-mailer", "search-indexer"),
    *("crm-export", "log-shipper", "image-resizer", "fraud-scorer", "report-builder"),
    *("cache-warmer", "order-router", "stock-watcher", "price-crawler", "ticket-triage"),
    *("chat-responder", "feed-importer", "cert-renewer", "tax-calculator", "audit-collector"),
    *("metrics-agent", "webhook-relay", "data-cleaner", "payroll-runner", "address-checker"),
    *("alert-bot", "release-notes", "dns-updater", "quota-keeper", "survey-sender"),
    *("translation-bot", "contract-reader", "refund-handler", "shipping-labels", "user-importer"),
    *("schema-migrator", "sandbox-cleaner", "video-encoder", "lead-scorer", "calendar-sync"),
)
DAY = timedelta(days=1)
_TUESDAY, _THURSDAY, _MONDAY, _SATURDAY = 1, 3, 0, 5

# The part of an agent's tokens in each hour of a working day, and of a day off.
_Pattern = tuple[Sequence[float], Sequence[float]]


def _pattern(weights: Mapping[range, float], weekend: float) -> _Pattern:
    hours = [sum(weight for part, weight in weights.items() if hour in part) for hour in range(24)]
    total = sum(hours)
    working = [weight / total for weight in hours]
    return working, [weekend * weight for weight in working]


_SERVICE = _pattern({range(24): 1.0, range(7, 20): 1.5, range(9, 17): 1.0}, weekend=0.55)
_OFFICE = _pattern({range(8, 18): 1.0}, weekend=0.0)
_NIGHTLY = _pattern({range(1, 5): 1.0}, weekend=1.0)
_EVENING = _pattern({range(24): 0.3, range(15, 23): 2.0}, weekend=1.5)
_OFFICE_AGENTS = {
    *("ci-deployer", "chat-responder", "payroll-runner", "crm-export", "report-builder"),
    *("ticket-triage", "tax-calculator", "release-notes", "survey-sender", "translation-bot"),
    *("refund-handler", "user-importer", "sandbox-cleaner", "lead-scorer", "calendar-sync"),
}
_NIGHT_AGENTS = {"nightly-backup", "audit-collector", "data-cleaner", "invoice-mailer"}

# The story's agents. The first of them has the most tokens, and so on.
LOOPING, QUIET, LEAKED, NEW, SPIKING = (
    *("price-crawler", "cert-renewer", "payroll-runner"),
    *("contract-reader", "schema-migrator"),
)
_LARGEST = (
    *("billing-sync", "order-router", "fraud-scorer", "ci-deployer", "search-indexer"),
    *("chat-responder", QUIET, "webhook-relay", LOOPING, LEAKED, "nightly-backup"),
)
_BY_SIZE = (*_LARGEST, *(one for one in NAMES if one not in {*_LARGEST, NEW, SPIKING}))
# The tokens of the largest agent on a working day. By Zipf's law the n-th has an n-th of them.
_LARGEST_TOKENS, _NEW_TOKENS = 160.0, 24.0
# The first day has so many of the last one's tokens.
_GROWN_FROM = 0.65

_LOOP_TIMES = 8.0
_LEAK_HOURS, _LEAK_TOKENS = range(1, 4), 5
_SPIKE_HOURS, _SPIKE_TOKENS = range(9, 20), 160.0
# The agent of the spike also has a few tokens now and then.
_RARE_DAYS, _RARE_TOKENS = 31, 12.0


class Other(NamedTuple):
    """An organization beside the story's, so that there is something to compare."""

    tenant_id: str
    agents: Sequence[str]
    tokens: float  # of the largest agent on a working day
    fall: float  # how fast the agents become smaller
    grown_from: float
    pattern: _Pattern


# These names belong to nobody: see RFC 2606. An agent of the third one has most of its tokens.
DOMINANT = "catalog-crawler"
DOMINATED = "pine-retail.example"
OTHERS = (
    Other(
        "harbor-logistics.example",
        ("route-planner", "dock-scheduler", "customs-filer", "fleet-tracker", "label-printer"),
        *(48.0, 1.0, 0.5, _SERVICE),
    ),
    Other(
        "lumen-health.example",
        ("intake-triage", "claims-checker", "lab-importer", "appointment-bot"),
        *(32.0, 1.0, 0.9, _OFFICE),
    ),
    Other(
        DOMINATED,
        (DOMINANT, "price-tagger", "review-reader"),
        *(40.0, 3.0, 0.8, _SERVICE),
    ),
    Other(
        "quarry-games.example",
        ("match-maker", "chat-moderator", "anti-cheat", "store-sync"),
        *(24.0, 1.0, 1.4, _EVENING),
    ),
    Other("atlas-archive.example", ("index-builder", "scan-reader"), 16.0, 1.0, 1.0, _NIGHTLY),
)
TENANTS = (ORGANIZATION, *(one.tenant_id for one in OTHERS))


class Telling(NamedTuple):
    """One telling of the story: the days on which something happens.

    Attributes:
        now: the day that it leads up to, on which the demonstration is loaded.
        spike, silent, holiday: a Tuesday, a Thursday and a Monday before it.
    """

    now: date
    spike: date
    silent: date
    holiday: date

    def times(self, name: str, day: date) -> float:
        """How many times its usual tokens an agent has: LOOPING retries, and QUIET has none."""
        if name == LOOPING and self.loop_from <= day <= self.now + 2 * DAY:
            return _LOOP_TIMES
        return 0.0 if name == QUIET and self.quiet_from <= day <= self.now + 10 * DAY else 1.0

    def is_leaked(self, day: date) -> bool:
        """Whether another party uses the credential of LEAKED in the night."""
        return self.leaked_from <= day <= self.now

    @property
    def loop_from(self) -> date:
        """The first day on which LOOPING retries."""
        return self.now - 4 * DAY

    @property
    def leaked_from(self) -> date:
        """The first day on which the credential of LEAKED is used in the night."""
        return self.now - DAY

    @property
    def quiet_from(self) -> date:
        """The first day on which QUIET is issued no token."""
        return self.now - 16 * DAY


def telling(first: date, day: date) -> Telling:
    """The telling that a day is a part of. ``first`` is the story's first day."""
    now = first + (DAYS - 1) * DAY
    number = max(-((now + 10 * DAY - day).days // DAYS), 0)
    now += number * DAYS * DAY
    return Telling(
        now,
        spike=_last(_TUESDAY, now - 21 * DAY),
        silent=_last(_THURSDAY, now - 8 * DAY),
        holiday=_last(_MONDAY, now - 36 * DAY),
    )


def holidays(first: date, tellings: int = 10) -> list[date]:
    """The holidays of the story's first tellings."""
    return [telling(first, first + number * DAYS * DAY).holiday for number in range(tellings)]


def first_seen(first: date) -> date:
    """The day of the first token of NEW."""
    return first + (DAYS - 6) * DAY


def day_events(first: date, day: date) -> list[Event]:
    """All events of a day in all organizations, future ones included."""
    events = list(_events(ORGANIZATION, day, _story_hours(first, day)))
    for other in OTHERS:
        events += _events(other.tenant_id, day, _other_hours(other, first, day))
    return events


def agent_id(tenant_id: str, name: str) -> str:
    """The id of an agent."""
    # The story's agents had these ids in the first release.
    key = NAMES.index(name) if tenant_id == ORGANIZATION else name
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{tenant_id}/agents/{key}"))


# An agent's tokens of one hour.
_Hour = tuple[str, int, int]


def _last(weekday: int, day: date) -> date:
    """The last such weekday up to a day."""
    return day - (day.weekday() - weekday) % 7 * DAY


def _dice(tenant_id: str, day: date) -> random.Random:
    # S311: these numbers are not secret. Every machine has to draw the same ones.
    return random.Random(f"{tenant_id} {day}")  # noqa: S311


def _events(tenant_id: str, day: date, hours: Iterator[_Hour]) -> Iterator[Event]:
    """The events of some hours of agents, at random moments."""
    dice = _dice(tenant_id, day)
    midnight = datetime.combine(day, time(), UTC)
    ids: dict[str, str] = {}
    for name, hour, count in hours:
        agent = ids.get(name) or ids.setdefault(name, agent_id(tenant_id, name))
        for number in range(count):
            moment = midnight + timedelta(hours=hour, seconds=int(3_600_000 * dice.random()) / 1000)
            event_id = f"{PREFIX}{day}-{name}-{hour:02}-{number:04}"
            yield Event(tenant_id, event_id, agent, moment, name)


def _story_hours(first: date, day: date) -> Iterator[_Hour]:
    told = telling(first, day)
    if day == told.silent:
        return
    dice = _dice("story", day)
    is_off = day.weekday() >= _SATURDAY or day == told.holiday
    level = _level(first, day, _GROWN_FROM) * dice.uniform(0.97, 1.03)
    for rank, name in enumerate(_BY_SIZE, 1):
        tokens = level * _LARGEST_TOKENS / rank * told.times(name, day)
        yield from _agent_hours(name, tokens, _pattern_of(name)[is_off], dice)
    if day >= first_seen(first):
        yield from _agent_hours(NEW, _NEW_TOKENS, _SERVICE[is_off], dice)
    if told.is_leaked(day):
        yield from ((LEAKED, hour, _LEAK_TOKENS) for hour in _LEAK_HOURS)
    if day == told.spike:
        each = _SPIKE_TOKENS * level
        yield from ((SPIKING, hour, int(each * dice.uniform(0.8, 1.2))) for hour in _SPIKE_HOURS)
    elif (day - first).days % _RARE_DAYS == 3:
        yield from _agent_hours(SPIKING, _RARE_TOKENS, _SERVICE[0], dice)


def _other_hours(other: Other, first: date, day: date) -> Iterator[_Hour]:
    dice = _dice(f"hours of {other.tenant_id}", day)
    level = _level(first, day, other.grown_from)
    pattern = other.pattern[day.weekday() >= _SATURDAY]
    for rank, name in enumerate(other.agents, 1):
        tokens = level * other.tokens / rank**other.fall
        yield from _agent_hours(name, tokens, pattern, dice)


def _level(first: date, day: date, grown_from: float) -> float:
    """The size of a day: ``grown_from`` on the first one, 1 on the 200th, and so on."""
    return max(grown_from + (1 - grown_from) * (day - first).days / (DAYS - 1), 0.1)


def _pattern_of(name: str) -> _Pattern:
    if name in _OFFICE_AGENTS:
        return _OFFICE
    return _NIGHTLY if name in _NIGHT_AGENTS else _SERVICE


def _agent_hours(
    name: str, tokens: float, parts: Sequence[float], dice: random.Random
) -> Iterator[_Hour]:
    for hour, part in enumerate(parts):
        count = int(tokens * part * dice.uniform(0.85, 1.15) + dice.random()) if part else 0
        if count:
            yield name, hour, count
