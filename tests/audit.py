"""``python -m tests.audit``: asks pip-audit about every package that the locks pin.

Owns the difference between three ends. A known vulnerability fails. A database out of reach
fails nothing, since a build may see no more of the network than a package index, but is said.
Anything else that breaks fails as it is. pip-audit's command exits alike for all three, and
takes a package that its database has never heard of for a sound one; its modules tell them apart.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from pip_audit._audit import Auditor
from pip_audit._dependency_source import DependencySourceError, RequirementSource
from pip_audit._format import ColumnsFormat
from pip_audit._service import Dependency, PyPIService, ServiceError, VulnerabilityResult
from requests import RequestException

from app.config.settings import ROOT

LOCKS = (ROOT / "requirements.txt", ROOT / "requirements-test.txt")
CACHE = Path(sys.prefix) / "audit-cache"  # goes when the virtualenv goes
ANSWER_SECONDS = 15
SECONDS = 120.0

Answers = dict[Dependency, list[VulnerabilityResult]]


class Pins:
    """What the locks pin, each pin once.

    A source of dependencies like pip-audit's own, which refuses two files that pin one
    package apart. Read before anything is asked: a broken lock fails without a network, too.
    """

    def __init__(self, locks: Sequence[Path]) -> None:
        self.pins: set[Dependency] = set()
        for lock in locks:
            source = RequirementSource([lock], require_hashes=True, disable_pip=True)
            pins = set(source.collect())
            if not pins:
                raise DependencySourceError(f"{lock} pins nothing")
            self.pins |= pins

    def collect(self) -> Iterator[Dependency]:
        return iter(sorted(self.pins, key=repr))


def main(locks: Sequence[Path] = LOCKS) -> int:
    pins = Pins(locks)
    answers: Answers = {}
    away = ""
    try:
        _within(SECONDS, lambda: _ask(pins, answers))
    except TimeoutError:
        away = f"no answer within {SECONDS:g} s"
    except (RequestException, ServiceError) as error:  # pip-audit lets some of the former through
        away = str(error) or str(error.__cause__)
    return _report(dict(answers), len(pins.pins), away)


def _ask(pins: Pins, answers: Answers) -> None:
    """Fill ``answers`` one by one: what is found before the database goes away still counts."""
    service = PyPIService(CACHE, timeout=ANSWER_SECONDS)
    with service.session:
        for pin, vulnerabilities in Auditor(service).audit(pins):
            answers[pin] = vulnerabilities


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do ``work``, or raise TimeoutError and leave it behind.

    A socket's time-out bounds neither the look-up of a name nor an answer that drips.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    Thread(target=run, name="audit", daemon=True).start()
    done.result(seconds)


def _report(answers: Answers, asked: int, away: str) -> int:
    unknown = [pin.name for pin in answers if pin.is_skipped()]
    if len(unknown) == asked:  # what a mirror of the packages alone answers
        away = f"it knows none of {asked} packages"
    if away:
        _warn(f"the vulnerability database is out of reach: {' '.join(away.split())}")
    elif unknown:
        _warn(f"the vulnerability database does not know {', '.join(unknown)}")
    if any(answers.values()):
        print(ColumnsFormat(output_desc=False, output_aliases=True).format(answers, []))
        return 1
    if checked := len(answers) - len(unknown):
        print(f"pip-audit: no known vulnerability in {checked} of {asked} packages")
    return 0


def _warn(text: str) -> None:
    print(f"pip-audit: NOT CHECKED, {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main([Path(lock) for lock in sys.argv[1:]] or LOCKS))
