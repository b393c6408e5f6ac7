"""Build the sources that entries describe."""

import hashlib
import socket
import threading
from collections.abc import Callable
from datetime import datetime

from app.config.settings import Settings
from app.intake.sources.credentials import Credentials, read_secret
from app.intake.sources.entries import Follow, Prepared, Pull, url_parser
from app.intake.sources.follow import Follower
from app.intake.sources.log_apis import LOG_APIS
from app.intake.sources.pages import PageReader, token_fetcher
from app.intake.sources.pull import Puller
from app.intake.sources.records import RecordReader
from app.provider_http import trusted_certificates
from app.storage.database import Database


def build(
    database: Database,
    settings: Settings,
    prepared: Prepared,
    stop: threading.Event,
    clock: Callable[[], datetime],
) -> Follower | Puller:
    """The source of an entry.

    Args:
        stop: ends the waits of a pull.

    Raises:
        SettingsError: a file of certificate authorities is invalid.
    """
    entry = prepared.entry
    records = RecordReader(
        entry.name, prepared.file_format, prepared.options, clock, rejects=entry.rejects
    )
    if isinstance(entry, Follow):
        return Follower(database, records, entry.path, socket.gethostname())
    return Puller(
        database,
        records,
        _log(entry),
        _pages(entry, settings, stop),
        every=prepared.every,
        since=prepared.since,
        overlap=prepared.overlap,
        clock=clock,
    )


def _log(entry: Pull) -> str:
    """What identifies a log: its API. If all customers share an API, the token's URL as well."""
    api = LOG_APIS[entry.provider](entry.url)
    is_shared = api.endpoint().url is None
    token_url = read_secret(entry.secret_file).token_url if is_shared else ""
    parts = f"{entry.provider} {api.origin}{api.base} {token_url}"
    return hashlib.sha256(parts.encode()).hexdigest()


def _pages(entry: Pull, settings: Settings, stop: threading.Event) -> PageReader:
    certificates = trusted_certificates(settings)
    api = LOG_APIS[entry.provider](entry.url)
    credentials = Credentials(
        entry.secret_file, api.endpoint(), token_fetcher(certificates), url_parser(settings)
    )
    return PageReader(api, credentials, certificates, stop.wait)
