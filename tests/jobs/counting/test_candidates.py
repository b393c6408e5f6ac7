"""Waiting on a cluster: first for writers, then for their parts at its nodes."""

from jobs.counting.watermark import NODES, Candidate, Writer

EARLY, LATE = "3/7", "4/9"
PART, LATER_PART = "2:5/1", "3:6/1"


def open_now(*writers):
    return frozenset({NODES, *writers})


def taken(*writers):
    return Candidate(10, open_now(*writers))


def test_nodes_are_not_asked_before_the_writers_here_have_ended():
    waiting = taken(EARLY, PART).remaining(open_now(EARLY, LATE, PART))
    assert waiting.writers == {EARLY, NODES}


def test_then_every_part_is_waited_for_and_no_later_one():
    waiting = taken(EARLY).remaining(open_now(LATE, PART))
    assert waiting.writers == {PART}
    assert waiting.remaining(open_now(LATE, PART, LATER_PART)).writers == {PART}
    assert not waiting.remaining(open_now(LATE, LATER_PART)).writers


def test_a_part_renamed_by_a_node_crash_is_awaited():
    """A run still waits for a part that returns under another name after its node crashed."""
    waiting = taken().remaining(open_now(PART))
    assert waiting.remaining(open_now("2:-1/740")).writers == {"2:-1/740"}


def test_without_parts_the_candidate_is_safe():
    assert not taken(EARLY).remaining(open_now(LATE)).writers


def test_a_part_is_named_by_its_node():
    writer = Writer(None, PART, None, None)
    assert str(writer) == "a part of a transaction at the cluster's node 2:5/1"
