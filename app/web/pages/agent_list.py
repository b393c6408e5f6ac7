"""Agents card: a page of the agents of the range, with what was chosen for it alone.

The choices are in the query of the page beside its filters: ``q``, ``show``, ``sort``, ``size`` and
``page``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, timedelta
from typing import NamedTuple

from werkzeug.datastructures import MultiDict

from app.detection import Kind
from app.reports.agent_kinds import SHOWN
from app.reports.agent_list import SORTS, AgentList, ListedAgent, Wanted
from app.reports.findings import Finding
from app.web import params
from app.web.pages.charts import spark_path
from app.web.pages.filters import Filters, given_of

# More rows would make a page larger than 60 kB, even without the other cards.
SIZES = {"12": 12, "all": 36}
# More bars than these would be too narrow to see, so that a sparkline has weeks.
MOST_BARS = 42
# A finding explains a day of an agent if at least this part of the excess is the agent's.
MOST_OF_IT = 0.5
UNUSUAL = 2  # times the usual, from which on a tag says how many

_KINDS = {
    "all": ("All", "Agents with tokens in this period"),
    "rising": ("Rising", "At least a third and 100 tokens more than on the days compared with"),
    "new": ("New", "The first token ever was in this period"),
    "quiet": (
        "Quiet",
        "At least a token a day on the days compared with, and none on the last 7 days",
    ),
    "unnamed": ("Unnamed", "Agents with tokens in this period and without a name"),
}
_HEADS = (
    ("name", "Agent", "ascending"),
    ("tokens", "Tokens", "descending"),
    ("change", "Change", "descending"),
    ("seen", "Last seen", "descending"),
)
_ARROWS = {"ascending": "\N{UPWARDS ARROW}", "descending": "\N{DOWNWARDS ARROW}"}
# The kinds that are about more tokens than usual on some days.
_ODD_KINDS = {Kind.SPIKE, Kind.RETRY_LOOP, Kind.UNUSUAL_HOUR, Kind.LEVEL_SHIFT}
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class ListChoice:
    """What is chosen for the list of agents.

    ``text``: what was typed to find agents. ``size``: a key of SIZES. ``page`` begins with 1.
    """

    text: str | None = None
    show: str = SHOWN[0]
    sort: str = SORTS[0]
    size: str = "12"
    page: int = 1

    @property
    def wanted(self) -> Wanted:
        limit = SIZES[self.size]
        return Wanted(limit, (self.page - 1) * limit, self.text, self.show, self.sort)

    def query(self, **changes: object) -> dict[str, str]:
        """The query with some of the choices changed; defaults are left out, and so is the page."""
        # Templates pass the fields of this class as keywords.
        chosen = replace(self, **{"page": 1, **changes})  # type: ignore[arg-type]
        defaults = ListChoice()
        names = {"q": "text", "show": "show", "sort": "sort", "size": "size", "page": "page"}
        return {
            name: str(getattr(chosen, field))
            for name, field in names.items()
            if getattr(chosen, field) != getattr(defaults, field)
        }


def parse_list(args: MultiDict[str, str]) -> ListChoice:
    """Parse what is chosen for the list of agents. An empty field counts as absent.

    Raises:
        ValidationError: a parameter is invalid.
    """
    given = given_of(args)
    return ListChoice(
        text=params.search(given),
        show=params.one_of(given, "show", SHOWN),
        sort=params.one_of(given, "sort", SORTS),
        size=params.one_of(given, "size", tuple(SIZES)),
        page=params.page(given),
    )


class Chip(NamedTuple):
    """A kind of agents, and how many they are; ``about`` says which."""

    label: str
    agents: int
    about: str
    url: str
    is_shown: bool


class Head(NamedTuple):
    """A head of the table; ``order`` is the value of ``aria-sort``, empty for other orders."""

    label: str
    url: str
    order: str
    arrow: str


class Row(NamedTuple):
    """An agent of the list. ``path`` and ``odd`` are its usual and unusual days as a sparkline.

    ``tags``: pairs of a class and a text. ``line``: the share of the largest agent's tokens.
    """

    agent: ListedAgent
    url: str
    line: float
    path: str
    odd: str
    tags: list[tuple[str, str]]


@dataclass(frozen=True)
class AgentsCard:
    """The card of the agents.

    ``first`` and ``last``: which of the ``listed.found`` agents are shown. ``previous``, ``next``,
    ``all_url`` and ``whole_url``: addresses of other pages, of pages of 100, and of the list
    without a search; empty if there is none.
    """

    listed: AgentList
    choice: ListChoice
    rows: list[Row]
    chips: list[Chip]
    heads: dict[str, Head]
    bars: int
    first: int
    last: int
    previous: str
    next: str
    all_url: str
    whole_url: str
    hidden: dict[str, str]


def agents_card(
    filters: Filters, choice: ListChoice, listed: AgentList, findings: Iterable[Finding]
) -> AgentsCard:
    """The card of the agents.

    Args:
        findings: the open findings, for tags and for unusual days.
    """
    notes = _notes(findings, filters)
    most = listed.largest.tokens if listed.largest else 0

    def url(**changes: object) -> str:
        return filters.url("dashboard.page", choice.query(**changes)) + "#agents"

    rows = [
        _row(filters, agent, most, notes.get(agent.agent_id, _NO_NOTE)) for agent in listed.agents
    ]
    limit = SIZES[choice.size]
    offset = (choice.page - 1) * limit
    is_last = offset + len(rows) >= listed.found
    return AgentsCard(
        listed=listed,
        choice=choice,
        rows=rows,
        chips=_chips(choice, listed, url),
        heads=_heads(choice, url),
        bars=len(_grouped([0] * len(filters.days))),
        first=offset + 1,
        last=offset + len(rows),
        previous=url(page=choice.page - 1) if choice.page > 1 and rows else "",
        next="" if is_last else url(page=choice.page + 1),
        all_url=url(size="all") if listed.found > limit and choice.size != "all" else "",
        whole_url=url(text=None, show=SHOWN[0]),
        hidden=filters.query() | choice.query(text=None),
    )


class _Note(NamedTuple):
    """What open findings say about an agent: how many times the usual, and its unusual days."""

    times: float
    days: frozenset[date]


_NO_NOTE = _Note(0.0, frozenset())


def _notes(findings: Iterable[Finding], filters: Filters) -> dict[str, _Note]:
    """The notes of agents, by id."""
    notes: dict[str, _Note] = {}
    first, last = filters.days.first, filters.days.last
    for finding in findings:
        begin, end = (
            instant.astimezone(filters.days.zone or UTC).date()
            for instant in (finding.begins_at, finding.ends_at - _MOMENT)
        )
        begin, end = max(begin, first), min(end, last)
        days = [begin + timedelta(days=day) for day in range((end - begin).days + 1)]
        typical = finding.usual.typical if finding.usual else 0
        times = finding.observed / typical if finding.scope == "agent" and typical else 0.0
        for agent in finding.agents:
            if agent.share >= MOST_OF_IT and finding.kind in _ODD_KINDS:
                known = notes.get(agent.agent_id, _NO_NOTE)
                notes[agent.agent_id] = _Note(max(known.times, times), known.days.union(days))
    return notes


def _row(filters: Filters, agent: ListedAgent, most: int, note: _Note) -> Row:
    tags = [("warn", "heavy")] if agent.is_heavy else []
    if note.times >= UNUSUAL:
        digits = 0 if note.times >= 10 else 1
        tags.append(("hot", f"{note.times:,.{digits}f}\N{MULTIPLICATION SIGN} usual"))
    tags += [("", "new")] if agent.is_new else []
    tags += [("warn", "quiet")] if agent.is_quiet else []
    is_odd = [day in note.days for day in filters.days]
    pairs = list(zip(agent.days, is_odd, strict=True))
    usual = _grouped([0 if odd else count for count, odd in pairs])
    unusual = _grouped([count if odd else 0 for count, odd in pairs])
    # A week with an unusual day is unusual.
    usual = [0 if odd else count for count, odd in zip(usual, unusual, strict=True)]
    whole = _grouped(agent.days)
    unusual = [count if odd else 0 for count, odd in zip(whole, unusual, strict=True)]
    highest = max(whole, default=0) or 1
    return Row(
        agent,
        filters.url("agent.page", {"agentId": agent.agent_id}),
        agent.count / most if most else 0.0,
        spark_path(usual, highest),
        spark_path(unusual, highest) if any(unusual) else "",
        tags,
    )


def _grouped(counts: Sequence[int]) -> list[int]:
    """The counts of days, or of weeks if there are many days. Weeks end with the last day."""
    if len(counts) <= MOST_BARS:
        return list(counts)
    ends = range(len(counts), 0, -7)
    return [sum(counts[max(end - 7, 0) : end]) for end in reversed(ends)]


def _chips(choice: ListChoice, listed: AgentList, url: Callable[..., str]) -> list[Chip]:
    """The kinds of agents. Without comparison there are no rising and no quiet ones."""
    return [
        Chip(label, getattr(listed.sizes, show), about, url(show=show), show == choice.show)
        for show, (label, about) in _KINDS.items()
        if listed.is_compared or show not in ("rising", "quiet") or show == choice.show
    ]


def _heads(choice: ListChoice, url: Callable[..., str]) -> dict[str, Head]:
    return {
        sort: Head(
            label,
            url(sort=sort),
            order if sort == choice.sort else "",
            f" {_ARROWS[order]}" if sort == choice.sort else "",
        )
        for sort, label, order in _HEADS
    }
