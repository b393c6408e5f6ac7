"""Requests under way wait for a place while places move, and are refused when they do not."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import waits
from app.errors import UnavailableError
from app.storage.locks import PATIENT_SECONDS, SPARE_SECONDS, within_request
from app.waits import Place, Places, Waits, place_left, seconds_left


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(waits, "PATIENCE_SECONDS", 0.2)


def test_a_request_waits_while_places_are_given_back():
    """Under full load with places that move, no request is refused, however long it waits."""
    places = Places(1)

    def work(_number):
        with places:
            time.sleep(0.05)

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(work, range(20)))


def test_stuck_places_refuse_further_requests_at_once():
    places = Places(2)
    with places, places:
        with pytest.raises(UnavailableError):
            places.take()
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(UnavailableError):
                places.take()
        # The patience is used up, once for all of them. Each for itself would wait for 20 s.
        assert time.monotonic() - began < 10
    with places, places:
        pass


def test_a_place_is_given_to_a_request_that_waits():
    places = Places(1)
    places.take()
    timer = threading.Timer(0.05, places.give_back)
    timer.start()
    places.take()
    timer.join()


def test_a_request_leaves_its_place_while_its_client_is_awaited():
    places = Places(1)
    place = Place(places)
    with place_left(), places:
        pass
    with pytest.raises(UnavailableError):
        places.take()
    place.end()
    # A thread without a request has no place to leave.
    with places, place_left(), pytest.raises(UnavailableError):
        places.take()


def test_a_place_that_is_not_taken_again_is_given_back_once():
    """A request whose place others hold after its wait is refused, and gives back nothing twice."""
    places = Places(1)
    place = Place(places)
    with pytest.raises(UnavailableError), place_left():
        places.take()
    place.end()
    with pytest.raises(UnavailableError):
        places.take()


def test_a_request_waits_for_a_place_until_its_end(monkeypatch):
    """Although places move, a request that has no time left gets none."""
    monkeypatch.setattr(waits, "REQUEST_SECONDS", 0.4)
    places, enough = Places(1), threading.Event()
    places.take()

    def move():
        while not enough.wait(0.02):
            with places._changed:
                places._moved = time.monotonic()

    mover = threading.Thread(target=move)
    mover.start()
    try:
        with pytest.raises(UnavailableError):
            Place(places)
    finally:
        enough.set()
        mover.join()
    assert seconds_left() == math.inf  # this thread has no request


def test_the_time_of_a_client_does_not_count(monkeypatch):
    """A request has as much time left after it has waited for its client as before."""
    monkeypatch.setattr(waits, "REQUEST_SECONDS", 100)
    place = Place(Places(1))
    with place_left():
        time.sleep(0.5)
        before = seconds_left()
    assert seconds_left() > before
    place.ends = time.monotonic()
    assert seconds_left() == 0
    place.keep()
    assert seconds_left() == math.inf
    place.end()


def test_a_wait_for_a_lock_ends_before_its_request(monkeypatch):
    """A statement of a request waits for a lock only as long as the request has time."""
    assert within_request(PATIENT_SECONDS) == PATIENT_SECONDS
    monkeypatch.setattr(waits, "REQUEST_SECONDS", PATIENT_SECONDS)
    place = Place(Places(1))
    assert 0 < within_request(PATIENT_SECONDS) <= PATIENT_SECONDS - SPARE_SECONDS
    place.ends = time.monotonic()
    assert within_request(PATIENT_SECONDS) == 0
    place.end()


def test_one_thread_is_always_free():
    """Requests that wait for the database and for clients hold all threads but one."""
    for requests in (1, 2, 4, 100):
        found = Waits(requests)
        for _ in range(requests):
            found.requests.take()
            assert found.clients.acquire(blocking=False)
        assert not found.clients.acquire(blocking=False)
        assert found.threads == 2 * requests + 1
        assert Waits(requests, 3).threads == found.threads + 3


def test_only_half_of_the_requests_wait_for_locks():
    found = Waits(4)
    assert [found.enter() for _ in range(3)] == [True, True, False]
    found.leave()
    assert found.enter()
    assert Waits(1).enter()
