"""``python -m jobs.dev`` ends at a signal, at any moment."""

import signal
import threading

import pytest

from jobs import dev


class Child:
    """A process that runs until it is terminated."""

    returncode = None
    starting = staticmethod(lambda: None)

    def __init__(self, *_arguments, **_options):
        self.starting()

    def poll(self):
        return None

    def terminate(self):
        pass

    def wait(self, _seconds):
        pass


@pytest.fixture
def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.timeout(30)
def test_a_signal_is_taken_at_any_moment(monkeypatch):
    monkeypatch.setattr(dev.subprocess, "Popen", Child)
    monkeypatch.setattr(dev, "POLL_SECONDS", 0)
    main = threading.main_thread().ident
    for number in range(100):
        press = threading.Timer(number / 10_000, signal.pthread_kill, (main, signal.SIGINT))
        # With the first child, because the handlers are installed by then.
        starts = iter([press.start])
        monkeypatch.setattr(Child, "starting", lambda _child, starts=starts: next(starts, int)())
        assert dev.main() == 0
        press.join()
