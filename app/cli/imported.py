"""Commands that are imported when they are used."""

from collections.abc import Mapping
from importlib import import_module
from typing import cast

import click
from flask.cli import AppGroup


class ImportedCommands(AppGroup):
    """A group of commands, each imported when it is called or listed, so that it starts sooner.

    Args:
        places: for each command, by its whole name as ``events purge``, its module and its name
            there as ``package.module:name``.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        super().__init__()
        self._places = places

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(name for name in self._places if " " not in name)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.list_commands(ctx) and name not in self.commands:
            self.add_command(_imported(self._places[name]), name)
            for path, place in self._places.items():
                if path.startswith(f"{name} "):
                    cast("click.Group", self.commands[name]).add_command(_imported(place))
        return super().get_command(ctx, name)


def _imported(place: str) -> click.Command:
    module, _, name = place.partition(":")
    return cast("click.Command", getattr(import_module(module), name))
