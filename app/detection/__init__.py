"""Detection: rules that find what is unusual in the counts of an organization.

Pure functions: no SQL, no Flask, no clock, no settings but :class:`Options`. The order of calls,
for one organization:

1. Once a day: make a :class:`Series` from the summary tables, from HISTORY_DAYS before the day to
   the day itself. :func:`usual` gives the day's :class:`Usual`. It reads only the days *before* the
   series' last one, so it is the same at 00:05 and at the end of the day. Store it.
2. After a run, for an organization that changed, and each hour for all: :func:`judge_today` with
   the stored :class:`Usual` and the day's counts so far, a :class:`Today`.
3. When the day is over and counted: :func:`judge_day` with the series and the :class:`Usual`.

Steps 2 and 3 give a :class:`Judgement`. :func:`advance` takes the organization's :class:`State` at
the *beginning* of the day and a judgement of that day, and gives the state after it. So a later
judgement of a day replaces an earlier one, and a whole day gives the same state whatever was judged
before. Store the state at the beginning of each of the last days, to judge a late day anew.

:func:`changes` compares the stored findings with a state: which are opened, updated, resolved,
reopened or corrected. A person's mark is no part of a state: :func:`is_muted` applies it.

:func:`summary` and :func:`advice` put a finding into words when it is read.

A state holds findings as the rules have them: ``is_open`` there says nothing of people.
All types are frozen dataclasses of plain values, dates and aware UTC datetimes, so that msgspec
writes and reads them as JSON.
"""

from app.detection.bounds import AgentUsual, Usual, Window, usual
from app.detection.findings import (
    Candidate,
    Finding,
    Judgement,
    Kind,
    Part,
    Range,
    Severity,
    Share,
    finding_id,
)
from app.detection.judging import judge_day, judge_today
from app.detection.life import REOPENED_DAYS, Change, State, advance, changes, is_muted
from app.detection.sentences import advice, summary
from app.detection.series import (
    HISTORY_DAYS,
    LARGEST_AGENTS,
    OTHERS,
    AgentSeries,
    Options,
    Series,
    merge_smallest,
)
from app.detection.today import Today

__all__ = [
    "HISTORY_DAYS",
    "LARGEST_AGENTS",
    "OTHERS",
    "REOPENED_DAYS",
    "AgentSeries",
    "AgentUsual",
    "Candidate",
    "Change",
    "Finding",
    "Judgement",
    "Kind",
    "Options",
    "Part",
    "Range",
    "Series",
    "Severity",
    "Share",
    "State",
    "Today",
    "Usual",
    "Window",
    "advance",
    "advice",
    "changes",
    "finding_id",
    "is_muted",
    "judge_day",
    "judge_today",
    "merge_smallest",
    "summary",
    "usual",
]
