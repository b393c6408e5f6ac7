"""Organizations: which tenant a provider's tenant, realm or agent belongs to.

Tokens of readers carry the tenant's id. A provider's log mostly names something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
