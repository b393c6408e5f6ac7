"""The arithmetic of a load run."""

from datetime import UTC, datetime

import pytest

from app.config.settings import ROOT
from tests.faults.ledger import Drift
from tests.load.measures import (
    MARGIN_SECONDS,
    Request,
    Spread,
    Window,
    failures,
    rate,
    rate_outside,
    read_requests,
    spread,
    window_of,
)
from tests.load.report import Report, write
from tests.load.samples import Samples
from tests.load.traffic import Batch, Promised, Scale

WINDOW = Window(start=100, back=103, end=104)


def request(start, status=200, seconds=0.5, kind="trend"):
    return Request(start, kind, status, seconds)


def report(**changes):
    """A report of a run in which all went well."""
    whole = {
        "postgresql": "18.0",
        "at_most": [request(n / 10) for n in range(100)],
        "held": [request(90 + n / 2) for n in range(60)],
        "clients": (4, 9),
        "asked": 2.0,
        "window": WINDOW,
        "acknowledged": 1_000,
        "drift": Drift(),
        "verified": 0,
        "tracebacks": "",
        "said": "",
        "samples": Samples(lags=[1.0, 3.0, 2.0], worker_bytes=2**20, scheduler_bytes=2**21),
    }
    return Report(**(whole | changes))


def test_percentiles_lie_between_the_values():
    assert spread([float(n) for n in range(101)]) == Spread(101, 50.0, 99.0, 100.0)
    assert spread([2.0, 4.0]) == Spread(2, 3.0, pytest.approx(3.98), 4.0)
    assert spread([7.0]) == Spread(1, 7.0, 7.0, 7.0)


def test_the_window_ends_with_the_first_success():
    """The window of failures ends with the first success after PostgreSQL is back."""
    requests = [
        request(99.9, seconds=3.5),  # sent before the stop
        request(100.1, seconds=0.1),  # answered while it was going down
        request(102.9, status=503, seconds=0.2),
        request(103.5, seconds=1),
        request(103.6, seconds=0.4),
    ]
    assert window_of(requests, stopped=100, back=103) == WINDOW
    assert window_of(requests[:3], stopped=100, back=103) is None


@pytest.mark.parametrize(
    ("failed", "excused"),
    [
        (request(99.0, 503, seconds=0.9), False),
        (request(99.0, 503, seconds=1.1), True),
        (request(102.0, 0), True),
        (request(102.0, 500), False),
        (request(104.0, 503, seconds=MARGIN_SECONDS), True),
        (request(104.0, 503, seconds=MARGIN_SECONDS + 0.1), False),
        (request(102.0, 0, seconds=30), False),  # hung, though it began in the window
    ],
)
def test_only_the_restart_excuses_a_failure(failed, excused):
    assert failures([request(1), request(2, 304), failed], WINDOW) == [failed] * (not excused)
    assert failures([failed]) == [failed]


def test_a_rate_excludes_warm_up_and_restart():
    """A rate excludes the time of warming up and of the restart."""
    steady = [request(n / 10, seconds=0.1) for n in range(100)]
    slow = [request(0, seconds=0.9)] * 5
    assert rate([*slow, *steady], skip=0.1) == pytest.approx(10)
    window = Window(4.95, 5.5, 5.95)
    assert rate_outside(steady, window) == pytest.approx(10, rel=0.05)


def test_what_clients_write_is_read_back(tmp_path):
    file = tmp_path / "held.requests"
    file.write_text("1.500000 ingest 202 0.250000\n2.000000 trend 0 30.000000\n3.0")
    assert read_requests(file) == [request(1.5, 202, 0.25, "ingest"), request(2.0, 0, 30.0)]


def test_a_batch_is_the_same_for_sender_and_checker(tmp_path):
    scale, at = Scale(tenants=3, agents=4), datetime(2026, 4, 1, tzinfo=UTC)
    sent = Batch("held-1", 50, at).events(scale)
    assert len({event[:2] for event in sent}) == 50
    assert {event.issued_at == at for event in sent} == {True, False}
    file = tmp_path / "held.batches"
    file.write_text('{"name":"held-1","size":50,"at":"2026-04-01T00:00:00Z"}\n')
    promised = Promised(scale, sent[:1])
    promised.acknowledge(file)
    assert promised.acknowledged == 50
    assert list(promised) == list(promised) == [sent[0], *sent]


def test_a_run_fails_by_any_loss_failure_or_traceback():
    assert report().exact
    assert not report(drift=Drift(lost=1)).exact
    assert not report(drift=Drift(doubled=1)).exact
    assert not report(verified=1).exact
    assert not report(tracebacks="Traceback").exact
    assert not report(at_most=[request(1), request(2, 500)]).exact
    hung = report(held=[*report().held, request(110, 0)])
    assert not hung.exact
    assert "status=0" in hung.explain()


def test_the_table_goes_between_the_marks_of_the_document(tmp_path):
    document = tmp_path / "capacity.md"
    document.write_text("# A\n<!-- load -->\nold\n<!-- /load -->\nB\n")
    write(report(), document)
    write(report(), document)
    text = document.read_text()
    assert text == f"# A\n<!-- load -->\n{report().table()}<!-- /load -->\nB\n"
    assert "old" not in text
    with pytest.raises(AssertionError, match="no place"):
        write(report(), ROOT / "README.md")


def test_the_documents_have_a_place_for_the_table():
    assert (ROOT / "docs" / "operate" / "capacity.md").read_text().count("<!-- load -->\n") == 1
