"""Generates documents from the declared settings: the table of settings and the example file.

``make settings-docs`` runs it. It replaces the text between the markers in docs/settings.md and
in deploy/agentidp-analytics.env.example.
"""

import re
import textwrap

from app.config.declaration import Computed, Variable, variables
from app.config.settings import ROOT, Settings

PAGE = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / "deploy" / "agentidp-analytics.env.example"

# Other files in deploy/ set HOST and PORT. ALLOW_SQLITE and FLASK_DEBUG are for development.
_NOT_IN_EXAMPLE = ("HOST", "PORT", "ALLOW_SQLITE", "FLASK_DEBUG")

_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


def page(text: str) -> str:
    """The text of docs/settings.md with a current table."""
    rows = [f"| `{one.name}` | {_default(one)} | {one.help} |" for one in _variables()]
    table = ["| name | default | meaning |", "|---|---|---|", *rows]
    return _between("<!-- settings: begin -->", "<!-- settings: end -->", text, table)


def example(text: str) -> str:
    """The text of the example file with a current list of settings.

    The list leaves out the settings that the text above the marker already mentions.
    """
    begin, end = "# settings: begin", "# settings: end"
    mentioned = re.findall(r"^#?([A-Z_]+)=", text.partition(begin)[0], re.MULTILINE)
    lines = []
    for one in _variables():
        if one.name not in (*mentioned, *_NOT_IN_EXAMPLE):
            lines += ["", *_comment(one), f"#{one.name}={_fixed(one)}"]
    return _between(begin, end, text, [*lines, ""])


def _variables() -> list[Variable]:
    return list(variables(Settings).values())


def _fixed(one: Variable) -> str:
    return "" if isinstance(one.default, Computed) else one.default or ""


def _default(one: Variable) -> str:
    if isinstance(one.default, Computed):
        return str(one.default)
    return f"`{one.default}`" if one.default else "none"


def _comment(one: Variable) -> list[str]:
    """The help as comment lines, without Markdown."""
    text = _LINK.sub(r"\1", one.help).replace("`", "")
    if isinstance(one.default, Computed):
        text += f"; default: {one.default}".replace("`", "")
    return textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")


def _between(begin: str, end: str, text: str, lines: list[str]) -> str:
    """The text with ``lines`` in place of the lines between two markers."""
    before, _, rest = text.partition(f"{begin}\n")
    after = rest.partition(f"{end}\n")[2]
    return "\n".join([f"{before}{begin}", *lines, f"{end}\n{after}"])


def main() -> None:
    """Write both documents."""
    for path, render in ((PAGE, page), (EXAMPLE, example)):
        path.write_text(render(path.read_text()))


if __name__ == "__main__":
    main()
