"""Commands that are imported when they are used, so that each starts sooner."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import click


class ImportingGroup(click.Group):
    """A group of commands, some of which are imported when they are called or listed.

    Attributes:
        places: for each of these its module and its name there, as ``package.module:name``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.places: dict[str, str] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.places})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.places and name not in self.commands:
            module, _, attribute = self.places[name].partition(":")
            self.add_command(cast("click.Command", getattr(import_module(module), attribute)), name)
        return super().get_command(ctx, name)


class ImportedCommands(ImportingGroup):
    """All commands and groups.

    Args:
        places: as above, by the whole name of a command, as ``events purge``.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        super().__init__()
        self.places = {name: place for name, place in places.items() if " " not in name}
        self._of_groups = {name: place for name, place in places.items() if " " in name}

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = super().get_command(ctx, name)
        if isinstance(found, ImportingGroup):
            for path, place in self._of_groups.items():
                group, _, command = path.partition(" ")
                if group == name:
                    found.places[command] = place
        return found
