"""Entries: the sources that a command or SOURCES_FILE names, checked at the start.

[organizations]
names = { acme = "org-a" }

[[source]]
kind = "follow"
name = "keycloak"
path = "/var/log/keycloak/keycloak.log"
format = "keycloak"
"""

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgspec

from app.config import parsing
from app.config.settings import Settings
from app.dates import EPOCH, parse_duration, parse_instant, parse_zone
from app.errors import ServiceError, SettingsError
from app.ids import is_id
from app.intake.formats import FORMATS, Format, Options, load_mapping
from app.intake.organizations import Organizations, read_organizations
from app.intake.sources.credentials import read_secret
from app.intake.sources.log_apis import LOG_APIS

VARIABLE = "SOURCES_FILE"
MAX_FILE_BYTES = 1024 * 1024
POLL_SECONDS = 1.0
PULL_SECONDS = 60.0
# These providers' records name no organization.
_NAMELESS = ("okta", "entra-graph")


class EntryError(ValueError):
    """A member of an entry is wrong. The message never repeats its value, which may be secret."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"{member}: {reason}" if member else reason)
        self.member = member
        self.reason = reason


class Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a followed file and a pulled log have in common.

    Attributes:
        name: the name of the position; each source has its own.
        organization: the organization of all events.
        rejects: a file that gets each refused record.
    """

    kind: ClassVar[str]
    name: str = ""
    format: str | None = None
    mapping: Path | None = None
    zone: str | None = None
    organization: str | None = None
    rejects: Path | None = None
    every: str | None = None


class Follow(Entry, kw_only=True, forbid_unknown_fields=True):
    """A log file that is followed."""

    kind = "follow"
    path: Path


class Pull(Entry, kw_only=True, forbid_unknown_fields=True):
    """A provider's log that is pulled."""

    kind = "pull"
    provider: str
    url: str
    secret_file: Path
    since: Any = None
    overlap: str | None = None


_KINDS: dict[str, type[Follow] | type[Pull]] = {one.kind: one for one in (Follow, Pull)}


@dataclass(frozen=True)
class Prepared:
    """A checked entry, ready to be run."""

    entry: Follow | Pull
    file_format: Format
    options: Options
    every: float
    since: datetime | None = None
    overlap: timedelta = timedelta(0)


@dataclass(frozen=True)
class Sources:
    """The content of SOURCES_FILE."""

    organizations: Organizations | None = None
    sources: tuple[Prepared, ...] = ()


def prepare(
    entry: Follow | Pull, settings: Settings, organizations: Organizations | None
) -> Prepared:
    """Check an entry, and load what it names.

    Raises:
        EntryError: a member is wrong.
    """
    if not is_id(entry.name):
        raise EntryError("name", "must have 1 to 255 characters, and no control characters")
    if entry.organization is not None and not is_id(entry.organization):
        reason = "must have 1 to 255 characters, and no control characters"
        raise EntryError("organization", reason)
    options = Options(
        entry.organization,
        settings.max_event_bytes,
        zone=_zone(entry.zone),
        organizations=organizations,
    )
    if isinstance(entry, Follow):
        if entry.rejects is not None and _is_same(entry.path, entry.rejects):
            raise EntryError("rejects", "is the followed file itself; name another file")
        file_format = _format(entry, None)
        if file_format.name == "csv":
            raise EntryError("format", "csv cannot be followed; load it with flask events import")
        return Prepared(entry, file_format, options, _seconds(entry, "every", POLL_SECONDS))
    return _prepared_pull(entry, settings, options)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there yet
        return path.absolute() == other.absolute()


def _prepared_pull(entry: Pull, settings: Settings, options: Options) -> Prepared:
    if entry.provider not in LOG_APIS:
        raise EntryError("provider", f"must be one of {', '.join(LOG_APIS)}")
    kind = LOG_APIS[entry.provider]
    try:
        url_parser(settings)(entry.url)
        if "@" in entry.url or "?" in entry.url or "#" in entry.url:
            raise ValueError("must be https://HOST or https://HOST/PATH, without query and user")
        kind(entry.url)
    except ValueError as error:
        raise EntryError("url", str(error)) from None
    try:
        read_secret(entry.secret_file)
    except ServiceError as error:
        raise EntryError("secret_file", error.message) from None
    if entry.provider in _NAMELESS and options.tenant_id is None and options.organizations is None:
        raise EntryError("organization", f"is needed: the records of {entry.provider} name none")
    return Prepared(
        entry,
        _format(entry, kind.format),
        options,
        _seconds(entry, "every", PULL_SECONDS),
        _since(entry.since),
        timedelta(seconds=_seconds(entry, "overlap", kind.overlap.total_seconds())),
    )


def url_parser(settings: Settings) -> Any:
    """The check of a URL that gets a secret: in production it has TLS."""
    return parsing.https_url if settings.production else parsing.web_url


def _format(entry: Entry, usual: str | None) -> Format:
    if entry.mapping is not None:
        try:
            return load_mapping(entry.mapping, entry.format)
        except ServiceError as error:
            raise EntryError("mapping", error.message) from None
    name = entry.format or usual
    if name is None or name not in FORMATS:
        raise EntryError("format", f"must be one of {', '.join(FORMATS)}; or give a mapping")
    return FORMATS[name]


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return parse_zone(name)
    except ValueError as error:
        raise EntryError("zone", str(error)) from None


def _seconds(entry: Entry, member: str, usual: float) -> float:
    text = getattr(entry, member)
    if text is None:
        return usual
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise EntryError(member, str(error)) from None
    if seconds == 0:
        raise EntryError(member, "must be longer than 0")
    return seconds


def _since(value: Any) -> datetime | None:
    """A date or an instant, as text or as TOML has it."""
    if value is None:
        return None
    with suppress(ValueError):
        if isinstance(value, str):
            value = parse_instant(value) if "T" in value.upper() else date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time(), UTC)
    if isinstance(value, datetime):
        instant = value if value.tzinfo else value.replace(tzinfo=UTC)
        if instant >= EPOCH:
            return instant
    reason = "must be a date or an instant since 1970, as 2026-04-01 or 2026-04-01T09:00:00Z"
    raise EntryError("since", reason)


def load_organizations(settings: Settings) -> Organizations | None:
    """The organizations of SOURCES_FILE alone, for a process that reads no source.

    Raises:
        SettingsError: the file is invalid; the message has line and reason.
    """
    path = settings.sources_file
    return None if path is None else _organizations(*_parsed(path))


def load_sources(path: Path, settings: Settings) -> Sources:
    """The organizations and sources of SOURCES_FILE, all of them checked.

    Paths in it are relative to its folder.

    Raises:
        SettingsError: the file is invalid; the message has line and reason.
    """
    tables, lines = _parsed(path)
    organizations = _organizations(tables, lines)
    return Sources(organizations, tuple(_listed(tables, lines, path, settings, organizations)))


def _parsed(path: Path) -> "tuple[dict[str, Any], _Lines]":
    text = _text(path)
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(VARIABLE, f"names {path}, which is not TOML: {error}") from None
    lines = _Lines(path, text)
    if unknown := [name for name in tables if name not in ("organizations", "source")]:
        raise lines.error(None, EntryError(unknown[0], "is unknown; write [[source]]"))
    return tables, lines


def _organizations(tables: Mapping[str, Any], lines: "_Lines") -> Organizations | None:
    if "organizations" not in tables:
        return None
    try:
        return read_organizations(tables["organizations"])
    except ValueError as error:
        raise lines.error(None, EntryError("organizations", str(error))) from None


def _listed(
    tables: Mapping[str, Any],
    lines: "_Lines",
    path: Path,
    settings: Settings,
    organizations: Organizations | None,
) -> list[Prepared]:
    listed = tables.get("source", [])
    if not isinstance(listed, list):
        raise lines.error(None, EntryError("source", "must be written as [[source]]"))
    found: list[Prepared] = []
    for number, table in enumerate(listed):
        try:
            one = prepare(_entry(table, path.parent), settings, organizations)
            if one.entry.name in [each.entry.name for each in found]:
                raise EntryError("name", f"{one.entry.name} is the name of another source, too")
        except EntryError as error:
            raise lines.error(number, error) from None
        found.append(one)
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError(VARIABLE, f"names {path}, which is larger than 1 MiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        reason = f"names {path}, which cannot be read: {error.strerror}"
        raise SettingsError(VARIABLE, reason) from None
    except UnicodeDecodeError:
        raise SettingsError(VARIABLE, f"names {path}, which is not UTF-8") from None


def _entry(table: Any, folder: Path) -> Follow | Pull:
    if not isinstance(table, Mapping):
        raise EntryError("source", "must be a table: write [[source]]")
    kind = _KINDS.get(str(table.get("kind")))
    if kind is None:
        raise EntryError("kind", "must be follow or pull")
    values = {name: value for name, value in table.items() if name != "kind"}
    try:
        entry = msgspec.convert(values, kind, dec_hook=lambda wanted, value: wanted(value))
    except (msgspec.ValidationError, TypeError) as error:
        raise _wrong_member(str(error)) from None
    for member in ("path", "mapping", "secret_file", "rejects"):
        if (named := getattr(entry, member, None)) is not None:
            if "\0" in str(named):
                raise EntryError(member, "must be a path")
            setattr(entry, member, folder / named)
    if not entry.name:
        entry.name = str(entry.path) if isinstance(entry, Follow) else entry.provider
    return entry


def _wrong_member(message: str) -> EntryError:
    if match := re.fullmatch(r"(.*) - at `\$\.(\w+)`", message):
        return EntryError(match[2], match[1])
    if match := re.fullmatch(r"Object missing required field `(\w+)`", message):
        return EntryError(match[1], "is required")
    if match := re.fullmatch(r"Object contains unknown field `(.+)`", message):
        return EntryError(match[1], "is unknown")
    return EntryError("", message)


class _Lines:
    """The lines of a file, in which an error finds its own."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def error(self, source: int | None, problem: EntryError) -> SettingsError:
        """The error for a member of the source with this number, or of the file."""
        first, last = self._part(source)
        name = re.escape(problem.member)
        member = re.compile(rf"""\s*\[*\s*["']?{name}["']?\s*[\]=.]""")
        matching = (n for n in range(first, last) if member.match(self._lines[n]))
        line = next(matching, first) + 1
        return SettingsError(VARIABLE, f"names {self._path}, line {line}: {problem}")

    def _part(self, source: int | None) -> tuple[int, int]:
        heads = [n for n, line in enumerate(self._lines) if re.match(r"\s*\[\[", line)]
        if source is None or source >= len(heads):
            return 0, len(self._lines)
        return heads[source], [*heads, len(self._lines)][source + 1]
