"""Organizations: which tenant a provider's tenant, realm or agent belongs to.

Tokens of readers carry the tenant's id. A provider's log mostly names something else.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import ValidationError
from app.ids import is_id

DEFAULT, NAMES, AGENTS = "default", "names", "agents"


@dataclass(frozen=True)
class Organizations:
    """The tenant of each name that a provider's records have.

    Attributes:
        tenants: the tenant of an organization or realm, as the record names it.
        agents: the tenant of an agent; for records whose organization is in no table.
        default: the tenant of every other record; ``None`` if the record's own name is the tenant.
    """

    tenants: Mapping[str, str]
    agents: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def tenant_of(self, named: str | None, agent_id: str) -> str | None:
        """The tenant of a record: by its organization, else by its agent, else the default.

        An organization that the table knows comes first, because its clients may choose their ids.
        """
        found = self.tenants.get(named) if named is not None else None
        if found is None:
            found = self.agents.get(agent_id)
        if found is None:
            found = self.default
        return found if found is not None else named


def read_organizations(table: Mapping[str, Any]) -> Organizations:
    """Organizations from a table of a TOML file.

    ``names`` and ``agents`` are tables from the provider's id to the tenant, and ``default`` is a
    tenant. An id may also stand beside them, without ``names``.

    Raises:
        ValueError: the table is invalid; the message names the member.
    """
    if not isinstance(table, Mapping):
        raise ValueError("organizations must be a table of the provider's ids and yours")
    names = {name: one for name, one in table.items() if name not in (DEFAULT, NAMES, AGENTS)}
    for name in (NAMES, AGENTS):
        if not isinstance(table.get(name, {}), Mapping):
            raise ValueError(f"{name} must be a table of the provider's ids and yours")
    names |= table.get(NAMES, {})
    agents, default = dict(table.get(AGENTS, {})), table.get(DEFAULT)
    for theirs, ours in (*names.items(), *agents.items()):
        if not is_id(ours):
            raise ValueError(
                f"{theirs} must be the id of an organization: text of 1 to 255 characters without"
                " control characters"
            )
    if default is not None and not is_id(default):
        raise ValueError(f"{DEFAULT} must be the id of an organization")
    return Organizations(names, agents, default)


def load_organizations(path: Path) -> Organizations:
    """Organizations from a TOML file that is such a table, or has it as ``[organizations]``.

    Raises:
        ValidationError: the file cannot be read or is invalid.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValidationError(f"{path}: {error}") from None
    inner = table.get("organizations")
    try:
        return read_organizations(inner if isinstance(inner, dict) else table)
    except ValueError as error:
        raise ValidationError(f"{path}: {error}") from None
