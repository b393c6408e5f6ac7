"""Contents of the reference page of the API: calls in groups, each with a command, and errors once.

Everything comes from the OpenAPI document; the group and the parameters of a command come from
``app.web.api.operations``.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from app.web.api.operations import JSON, Group, Operation, name_of

# It stands for the address of the service in commands, because one page is made for all addresses.
SERVER = "https://server.invalid"
_FIRST_ERROR = 400


@dataclass(frozen=True)
class Call:
    """An operation: its part of the document, the path of its CSV, and a command that calls it."""

    method: str
    path: str
    operation: Mapping[str, Any]
    csv: str | None
    command: str

    @property
    def scope(self) -> str | None:
        security = self.operation["security"]
        return next(iter(security[0]["bearer"]), None) if security else None

    @property
    def success(self) -> tuple[str, Mapping[str, Any]]:
        """The status of a successful response, and its description."""
        responses: Mapping[str, Any] = self.operation["responses"]
        return next(iter(responses.items()))

    @property
    def errors(self) -> list[str]:
        return [status for status in self.operation["responses"] if int(status) >= _FIRST_ERROR]


@dataclass(frozen=True)
class Contents:
    """The page: calls by group, and what they share, each once."""

    groups: Mapping[Group, list[Call]]
    errors: Mapping[str, Mapping[str, Any]]
    headers: Mapping[str, str]
    types: Mapping[str, Any]


def contents(document: Mapping[str, Any], known: Mapping[str, Operation]) -> Contents:
    """The contents of the page, from the document and its operations."""
    paths, by_id = document["paths"], {name_of(endpoint): one for endpoint, one in known.items()}
    groups: dict[Group, list[Call]] = {group: [] for group in Group}
    errors: dict[str, Mapping[str, Any]] = {}
    headers: dict[str, str] = {}
    for path, method, described in _operations(paths):
        operation = by_id.get(described["operationId"])
        for status, response in described["responses"].items():
            if int(status) >= _FIRST_ERROR:
                errors[status] = response
            for name, header in response.get("headers", {}).items():
                headers[name] = header["description"]
        if operation is not None:  # and not the same one as CSV
            csv = f"{path}.csv" if f"{path}.csv" in paths else None
            command = _command(method, path, described, operation)
            groups[operation.group].append(Call(method, path, described, csv, command))
    return Contents(
        {group: calls for group, calls in groups.items() if calls},
        dict(sorted(errors.items())),
        headers,
        document["components"]["schemas"],
    )


def _operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in paths.items():
        for method, described in methods.items():
            yield path, method.upper(), described


def _command(method: str, path: str, described: Mapping[str, Any], operation: Operation) -> str:
    """A command for curl, with the examples of the parameters that the operation names."""
    examples = {each["name"]: each.get("example") for each in described["parameters"]}
    for name, example in examples.items():
        path = path.replace(f"{{{name}}}", quote(str(example), safe=""))
    query = urlencode({name: examples[name] for name in operation.shown}, quote_via=quote, safe="")
    address = SERVER + path + (f"?{query}" if query else "")
    parts = ["curl -sS", f"'{address}'"]  # a path and a query are escaped
    if method != "GET":
        parts.insert(1, f"-X {method}")
    lines = [" ".join(parts)]
    if described["security"]:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in described:
        sample = operation.sample or described["requestBody"]["content"][JSON]["example"]
        lines += [f'-H "Content-Type: {JSON}"', f"-d {shlex.quote(_compact(sample))}"]
    return " \\\n  ".join(lines)


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
