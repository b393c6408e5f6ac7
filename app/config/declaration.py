"""Declaration of a setting: its environment variable, parser, default and help."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, overload

from app.errors import SettingsError

T = TypeVar("T")
Parser = Callable[[str], T]

_KEY = "variable"


class Computed(str):
    """A default that is found at run time; the text describes it in the documents."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """The declaration of one environment variable.

    Attributes:
        parse: converts the text to a value. It raises ``ValueError`` with the problem, such as
            "must be 1 or 0". The problem must not repeat the text, which may be secret.
        help: what the variable does, in Markdown, with links relative to ``docs/``.
        in_production: a stricter parser, for ``APP_ENV=production``.
        exact: white space around the text is part of it; around others it is removed.
    """

    name: str
    parse: Parser[object]
    default: str | None
    help: str
    in_production: Parser[object]
    exact: bool

    def text(self, env: Mapping[str, str]) -> str | None:
        """The variable's text; ``None`` if it is unset or empty."""
        text = env.get(self.name, "")
        return (text if self.exact else text.strip()) or None

    def read(self, env: Mapping[str, str], *, production: bool) -> object:
        """The variable's value; ``None`` if it is unset and has no fixed default.

        Raises:
            SettingsError: the text is invalid; the message names the variable.
        """
        fixed = None if isinstance(self.default, Computed) else self.default
        text = env.get(self.name, fixed)
        if text is None:
            return None
        try:
            return self.in_production(text) if production else self.parse(text)
        except ValueError as error:
            raise SettingsError(self.name, str(error)) from None


@overload
def setting(
    name: str,
    parse: Parser[T],
    default: str,
    help: str,
    *,
    secret: bool = False,
    exact: bool = False,
    in_production: Parser[T] | None = None,
) -> T: ...
@overload
def setting(
    name: str,
    parse: Parser[T],
    default: None,
    help: str,
    *,
    secret: bool = False,
    exact: bool = False,
    in_production: Parser[T] | None = None,
) -> T | None: ...
def setting(  # noqa: PLR0913 - the parts of one declaration
    name: str,
    parse: Parser[object],
    default: str | None,
    help: str,
    *,
    secret: bool = False,
    exact: bool = False,
    in_production: Parser[object] | None = None,
) -> Any:
    """A dataclass field for an environment variable; a secret stays out of the object's repr."""
    declared = Variable(name, parse, default, help, in_production or parse, exact)
    return field(repr=not secret, metadata={_KEY: declared})


def variables(settings: type[Any]) -> dict[str, Variable]:
    """The variables that a class declares, by the name of the attribute."""
    return {one.name: one.metadata[_KEY] for one in fields(settings)}
