"""Pull a provider's log: page by page, each committed with the cursor behind it.

A pull begins a little before the newest record that was read, because records may become visible
late. The ids of events make this safe: a record that is read again is a duplicate.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from app.intake.events import FUTURE, prepared
from app.intake.sources.log_apis import ForeignLinkError, Page
from app.intake.sources.pages import GoneError, PageReader, PullError
from app.intake.sources.positions import (
    MovedError,
    Spot,
    advance,
    claim,
    create,
    note_failure,
    note_read,
)
from app.intake.sources.records import RecordReader
from app.provider_http import FetchError
from app.storage.database import Database
from app.telemetry import logs

log = logging.getLogger("app.sources")

# A pull ends at these limits, and the next one goes on.
PULL_SECONDS = 300.0
PULL_PAGES = 1000
PULL_BYTES = 1024 * 1024 * 1024
MAX_MARKS = 32
# Schedulers tick a little early or late, so a pull is due this share of its interval earlier.
EARLY = 0.1


@prepared
class Mark(msgspec.Struct, frozen=True):
    """The token of a page, and the newest instant before it; ``None`` at the begin."""

    token: str
    at: datetime | None = None


@prepared
class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The position of a pulled log.

    Attributes:
        newest: the newest instant up to which the log was read.
        upper: the newest instant of the pages of a pull that has not ended.
        next: the token of its next page.
        marks: pages at which a pull can begin, the oldest first.
        is_deep: whether this pull has found new records from before the overlap.
        is_joined: whether it has reached records that were read before it.
        again: whether this pull repeats the last one, since that one was deep or not joined. A page
            that the provider has left out there would not be read by a later pull.
        not_before: when the provider allows the next request.
        log: which log this is a position of, see :attr:`Puller.log`. Set only where it is stored.
    """

    newest: datetime | None = None
    upper: datetime | None = None
    next: str | None = None
    marks: tuple[Mark, ...] = ()
    is_deep: bool = False
    is_joined: bool = False
    again: bool = False
    not_before: datetime | None = None
    log: str = ""

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


@dataclass
class Puller:
    """Pulls the log of one provider. One thread at a time takes its turns.

    Args:
        records: reads the records of the log, and has its name.
        log: what identifies the log. Another one under the same name is refused, because the
            position would hide its older records.
        pages: requests the pages.
        every: the seconds between two pulls; 0 if each turn is one.
        since: how far back the first pull begins; ``None`` for the whole log.
        overlap: how much of the log each pull reads again.
        clock: returns the present.
    """

    database: Database
    records: RecordReader
    log: str
    pages: PageReader
    every: float
    since: datetime | None
    overlap: timedelta
    clock: Callable[[], datetime]
    monotonic: Callable[[], float] = time.monotonic

    @property
    def name(self) -> str:
        return self.records.name

    def fail(self, reason: str) -> None:
        """Note why a turn failed."""
        note_failure(self.database, self._stored(), reason)

    def _stored(self) -> Spot:
        first = Spot(self.name, "", self.pages.api.name, Cursor().text())
        return create(self.database, first)

    def close(self) -> None:
        """Nothing is open between two turns."""

    def turn(self) -> bool | None:
        """Pull what is new; return whether another pull is needed at once.

        ``None`` if no pull is due, or another process pulls this log.

        Raises:
            PullError: the pull cannot go on. The pages before are stored.
            DBAPIError: the database is unavailable.
        """
        spot = self._stored()
        if not claim(self.database, spot, self.every * (1 - EARLY)):
            return None
        try:
            return self._pull(spot)
        except MovedError:
            return None

    def _pull(self, spot: Spot) -> bool:
        cursor = msgspec.json.decode(spot.position, type=Cursor)
        if cursor.log and cursor.log != self.log:
            raise PullError("the position with this name is of another log; give this one a name")
        if cursor.not_before is not None:
            wait = (cursor.not_before - self.clock()).total_seconds()
            if 0 < wait <= 3600:  # a later instant means that the clock was set back
                raise PullError(f"the provider allows the next request in {wait:.0f} s", wait)
        run = _Run(self, spot, cursor)
        try:
            return run.pages()
        except PullError as error:
            if error.wait > 0:
                run.postpone(self.clock() + timedelta(seconds=error.wait))
            raise


class _Run:
    """One pull."""

    def __init__(self, puller: Puller, spot: Spot, cursor: Cursor) -> None:
        self._puller = puller
        self._api = puller.pages.api
        self._spot = spot
        self._cursor = msgspec.structs.replace(cursor, not_before=None, log="")
        self._began_anew = False
        self._seen: set[bytes] = set()

    def pages(self) -> bool:
        """Read pages to the end or to a limit; return whether another pull is needed at once."""
        token = self._begin()
        until = self._puller.monotonic() + PULL_SECONDS
        read = 0
        for number in range(PULL_PAGES):
            self._refuse_loop(token)
            try:
                answer = self._puller.pages.read(token, until)
                page = self._api.page(token, answer)
            except GoneError as error:
                token = self._anew(error, token)
                continue
            except FetchError as error:
                raise PullError(str(error)) from None
            except ForeignLinkError:
                raise PullError("the link to the next page leads to another host") from None
            read += len(answer.body)
            following = self._following(page)
            self._store(token, page, following, number)
            if following is None:
                return self._cursor.again
            token = following
            if self._puller.monotonic() >= until or read >= PULL_BYTES:
                break
        self._log_limit()
        return True

    def postpone(self, instant: datetime) -> None:
        """Store when the provider allows the next request."""
        cursor = msgspec.structs.replace(self._cursor, not_before=instant)
        advance(self._puller.database, self._spot, self._text(cursor))

    def _text(self, cursor: Cursor) -> str:
        return msgspec.structs.replace(cursor, log=self._puller.log).text()

    def _begin(self) -> str:
        """The token with which the pull begins."""
        cursor = self._cursor
        if cursor.next is not None:
            return cursor.next  # the last pull did not reach the end
        low = self._low()
        if self._api.resumes and cursor.marks:
            before = [one for one in cursor.marks if one.at is None or (low and one.at <= low)]
            return (before or cursor.marks)[-1 if before else 0].token
        return self._api.first(low or self._puller.since)

    def _low(self) -> datetime | None:
        newest = self._cursor.newest
        return None if newest is None else newest - self._puller.overlap

    def _anew(self, error: GoneError, refused: str) -> str:
        """The token to begin with after the provider has refused one."""
        if self._began_anew:
            raise PullError(str(error))
        self._began_anew = True
        since = self._low() or self._puller.since
        if self._cursor.next is None and not self._cursor.marks and self._api.keeps is not None:
            since = max(filter(None, (since, self._puller.clock() - self._api.keeps)))
        token = self._api.first(since)
        if token == refused:
            raise PullError(str(error))
        self._cursor = msgspec.structs.replace(self._cursor, next=None, upper=None, marks=())
        self._seen.clear()
        logs.write(log, logging.WARNING, "pull began anew", source=self._puller.name)
        return token

    def _refuse_loop(self, token: str) -> None:
        """Refuse a token that this pull has used: the links of the provider lead in a circle."""
        digest = hashlib.sha256(token.encode()).digest()
        if digest in self._seen:
            fresh = msgspec.structs.replace(self._cursor, next=None, upper=None)
            advance(self._puller.database, self._spot, self._text(fresh))
            raise PullError("the links to the next page lead in a circle")
        self._seen.add(digest)

    def _following(self, page: Page) -> str | None:
        """The token of the next page; ``None`` if it is not needed.

        Where the newest records come first, a page of records that were all read before is the
        last one.
        """
        low, times = self._low(), page.times
        if self._api.resumes or low is None or len(times) < 2:
            return page.next
        is_newest_first = times[0] > times[-1] and times == sorted(times, reverse=True)
        return None if is_newest_first and times[0] < low else page.next

    def _store(self, token: str, page: Page, following: str | None, number: int) -> None:
        """Store the events of a page with the cursor behind it."""
        puller = self._puller
        found = puller.records.read(
            (text.replace(b"\n", b" ") + b"\n" for text in page.records), f"page {number + 1}"
        )
        cursor = self._moved(token, page, following)
        if cursor == self._cursor and not page.records:
            note_read(puller.database, self._spot)
            return
        self._spot, _stored = advance(
            puller.database,
            self._spot,
            self._text(cursor),
            found.events,
            skipped=found.skipped.total(),
            refused=found.refused,
            before_commit=lambda: puller.records.keep(found.rejected),
        )
        self._cursor = cursor

    def _moved(self, token: str, page: Page, following: str | None) -> Cursor:
        """The cursor behind a page."""
        cursor = self._cursor
        # The time of a record may be invented. Beyond the present it would hide all later ones.
        limit = self._puller.clock() + FUTURE
        times = [instant for instant in page.times if instant <= limit]
        upper = max((*times, *filter(None, (cursor.upper, cursor.newest))), default=None)
        if not self._api.resumes:
            cursor = self._judged(times, upper)
            if following is not None:
                return msgspec.structs.replace(cursor, upper=upper, next=following)
            is_sure = upper == cursor.newest or (cursor.is_joined and not cursor.is_deep)
            if is_sure or cursor.again:
                return Cursor(newest=upper)
            return Cursor(newest=cursor.newest, again=True)
        marks = cursor.marks or (Mark(token),)
        if following is not None and len(times) == len(page.times):
            marks = (*marks, Mark(following, upper))
        return Cursor(newest=upper, next=following, marks=self._kept(marks, upper))

    def _judged(self, times: list[datetime], upper: datetime | None) -> Cursor:
        """The cursor with what the times of a page say about the pull."""
        cursor, newest = self._cursor, self._cursor.newest
        low = None if upper is None else upper - self._puller.overlap
        is_deep = any(low and at < low and (newest is None or at > newest) for at in times)
        is_joined = newest is not None and any(at <= newest for at in times)
        return msgspec.structs.replace(
            cursor,
            is_deep=cursor.is_deep or is_deep,
            is_joined=cursor.is_joined or is_joined,
        )

    def _kept(self, marks: tuple[Mark, ...], newest: datetime | None) -> tuple[Mark, ...]:
        """The marks at which a pull may begin: the last one before the overlap, and later ones."""
        if newest is None:
            return marks[-MAX_MARKS:]
        low = newest - self._puller.overlap
        old = [one for one in marks if one.at is None or one.at <= low]
        kept = [*old[-1:], *(one for one in marks if one not in old)]
        if len(kept) > MAX_MARKS:
            kept = [kept[0], *kept[1:-1:2], kept[-1]]
        return tuple(kept)

    def _log_limit(self) -> None:
        message = "pull ended at a limit; the next one goes on"
        logs.write(log, logging.WARNING, message, source=self._puller.name)
