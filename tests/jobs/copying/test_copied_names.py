"""What agents are called goes along with a copy, and what is said at its target is not lost."""

import pytest

from app.errors import RefusedError
from tests.jobs.copying import copies
from tests.jobs.copying.copies import copy, issue, name

EARLY, LATE, LATER = "2026-04-01T00:00:00Z", "2026-04-01T00:00:00.000001Z", "2026-05-01T00:00:00Z"


@pytest.fixture
def copied(source, target):
    """A source with an event and two names, and its copy."""
    issue(source, "one")
    name(source, "agent-1", "first", EARLY)
    name(source, "agent-2", "other", LATE)
    copy(source, target)


def test_names_that_have_changed_at_the_source_are_brought_by_the_next_copy(copied, source, target):
    name(source, "agent-1", "second", LATE)
    name(source, "agent-2", None, LATER)
    name(source, "agent-3", "new", EARLY)
    copy(source, target)
    assert copies.without_mark(target) == copies.as_copied(source)


def test_names_without_any_event_are_copied(source, target):
    name(source, "agent-1", "first", EARLY)
    copy(source, target)
    assert copies.without_mark(target) == copies.as_copied(source)


@pytest.mark.parametrize(
    "said",
    [
        {"agent": "agent-1", "text": "own", "at": LATE},
        {"agent": "agent-2", "text": None, "at": LATER},
        {"agent": "agent-3", "text": "own", "at": EARLY},
    ],
    ids=["replaced", "taken back", "new"],
)
def test_own_names_are_not_overwritten(copied, source, target, said):
    name(target, **said)
    issue(source, "two")
    before = copies.contents(target)
    with pytest.raises(RefusedError, match="names of its own"):
        copy(source, target)
    assert copies.contents(target) == before


def test_names_that_come_in_at_half_a_copy_are_found_and_kept(source, target):
    issue(source, "one")

    def write(what, *_):
        if what == "copying":
            name(target, "agent-1", "own", EARLY, tenant="own")

    with pytest.raises(RefusedError, match="names of its own"):
        copy(source, target, on_rows=write)
    assert copies.is_half(target)
    assert len(copies.contents(target)["agents"]) == 1
