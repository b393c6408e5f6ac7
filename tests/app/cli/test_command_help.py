"""``--help``: examples that can be pasted, exit codes that can be relied upon."""

import re
import shlex
from pathlib import Path

import click
import pytest
from flask import Flask

from app.cli.base import Command
from app.config.settings import ROOT
from tests.support.command_line import commands

ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")


@pytest.fixture(scope="module")
def every(service: Flask) -> dict[str, click.Command]:
    return commands(service)


def help_of(name: str, command: click.Command) -> str:
    return command.get_help(click.Context(command, info_name=name))


def examples(name: str, command: click.Command) -> list[str]:
    """The lines under the last heading of the help."""
    text = help_of(name, command)
    found = re.search(r"\nExamples?:\n((?:  \S[^\n]*\n?)+)$", text)
    assert found, f"{name} --help does not end with examples:\n{text}"
    return [line.strip() for line in found[1].splitlines()]


def words(line: str) -> list[str]:
    """What the shell makes of the service's part in a line."""
    split = shlex.split(line.rpartition("|")[2])
    while ASSIGNMENT.fullmatch(split[0]):
        del split[0]
    return split


def test_every_command_is_one_of_ours(every: dict[str, click.Command]) -> None:
    assert {name for name, command in every.items() if not isinstance(command, Command)} == set()
    assert len(every) > 15


def test_every_command_with_a_result_has_a_json_option(
    every: dict[str, click.Command],
) -> None:
    """Every command has the option `--json`, except those that run until they are stopped.

    And the one that runs others, which have it.
    """
    options = {name: {option.name for option in command.params} for name, command in every.items()}
    without = {"python -m jobs", "flask events follow", "flask demo prepare"}
    assert {name for name, of in options.items() if "as_json" not in of} == without


def test_every_help_ends_with_examples_that_are_understood(
    every: dict[str, click.Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in every.items():
        for line in examples(name, command):
            prefix, rest = words(line)[: len(name.split())], words(line)[len(name.split()) :]
            assert prefix == name.split(), line
            for word in rest:
                if re.fullmatch(r"[a-z]+(\.[a-z]+)+", word):
                    Path(word).touch()  # a file that the operator has
            with command.make_context(name, rest):
                pass


def test_an_example_with_an_unknown_option_would_be_noticed(
    every: dict[str, click.Command],
) -> None:
    with pytest.raises(click.NoSuchOption):
        every["flask rollup verify"].make_context("verify", ["--since", "2026-01"])


def test_examples_are_not_wrapped_however_narrow_the_terminal(
    every: dict[str, click.Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {name: examples(name, command) for name, command in every.items()}
    monkeypatch.setenv("COLUMNS", "50")
    assert {name: examples(name, command) for name, command in every.items()} == wide


def test_every_exit_code_stands_in_the_help_and_in_the_docs(
    every: dict[str, click.Command],
) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    listed = set(re.findall(r"^\| `(\d+)` \|", page, re.MULTILINE))
    documented = set()
    for name, command in every.items():
        section = help_of(name, command).partition("\nExit codes:\n")[2].partition("\n\n")[0]
        codes = re.findall(r"^  (\d+)  ", section, re.MULTILINE)
        assert {"0", "1", "2", "130"} <= set(codes), name
        documented |= set(codes)
    assert documented == listed == {"0", "1", "2", "73", "75", "130"}
    assert {name for name, command in every.items() if 75 in command.exits} == {
        "flask rollup run",
        "flask db copy",
        "flask events pull",
    }
    assert {name for name, command in every.items() if 73 in command.exits} == {"flask demo load"}
