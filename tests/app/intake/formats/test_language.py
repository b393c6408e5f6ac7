"""The mapping language: what a mapping file may say, and how its errors are named."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from app.errors import ValidationError
from app.intake import formats
from app.intake.formats import load_mapping
from app.intake.formats.language import Mapping, json_schema
from app.intake.organizations import read_organizations
from tests.app.intake.formats.reading import events, lines, mapping, read, reasons

SHIPPED = sorted(Path(formats.__file__).parent.glob("*.toml"))
SCHEMA = Path("docs/identity-providers/mapping.schema.json")

SMALL = """
# A comment
[my-idp]
issued = { kind = "token" }
id = "id"
agent = "client"
time = "at"
"""
RECORD = {"kind": "token", "id": "e1", "client": "a1", "at": "2026-04-01T09:00:00Z"}


def test_the_schema_for_editors_is_that_of_the_parser() -> None:
    """The file is written from the parser's types, so both agree."""
    assert json.loads(SCHEMA.read_text("utf-8")) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_is_valid(path: Path) -> None:
    """Each shipped file meets the schema and the parser, and is named as its format."""
    text = path.read_text("utf-8")
    jsonschema.validate(tomllib.loads(text), json_schema())
    assert load_mapping(path).name == path.stem
    assert text.startswith("#:schema ")


def test_each_shipped_file_is_a_format() -> None:
    assert {path.stem for path in SHIPPED} == formats.FORMATS.keys() - formats.NATIVE.keys()


WRONG = {
    "unknown member": ('nmae = "x"', 8, "nmae: is unknown"),
    "number for a path": ("name = 5", 8, "name: expected"),
    "empty path": ('name = ""', 8, "name: '' is not a path"),
    "bad path in a list": ('name = [\n  "a",\n  "b..c",\n]', 10, "name: 'b..c' is not a path"),
    "brackets in a path": ('name = "a[].b"', 8, "name one element"),
    "unquoted dots": ("failed = { a.b.c = 1 }", 8, "failed: has the unknown member `b`"),
    "unknown test": ('failed = { a = { starts = "x" } }', 8, "failed: has the unknown member"),
    "empty condition": ("failed = {}", 8, "failed: expected"),
    "empty list of conditions": ("failed = []", 8, "failed: expected"),
    "empty list of values": ("failed = { a = [] }", 8, "failed: a list of values needs"),
    "a date as a value": ("failed = { a = 2026-01-01 }", 8, "failed: expected"),
    "a list of one in join": ('[my-idp.name]\njoin = ["a"]', 8, "name: "),
    "bad regex": ("text = '(?P<a>x'", 8, "text: is not a regular expression"),
    "regex without a name": ("text = ['(?P<a>x)', '(y)']", 8, "text: has a group without"),
    "too many groups": (f"text = '{'(?P<g%d>x)' * 40}'" % (*range(40),), 8, "text: has 40 groups"),
    "endless regex": ("text = '(?P<a>(?:x+)+)'", 8, "text: repeats a group"),
    "bad batch": ('batches = ["a[0].b"]', 8, "batches: "),
    "batch of arrays in arrays": ('batches = ["a[][].b"]', 8, "batches: .* before each"),
    "batch that ends in arrays": ('batches = ["a[][]"]', 8, "batches: .* before each"),
    "batch in a batch": ('batches = ["a[].b", "a"]', 8, "batches: a batch is within"),
    "bad organizations": ('[my-idp.organizations]\nc1 = ""', 8, "organizations: c1 must be"),
    "no organization": ("organizations = { c1 = 5 }", 8, "organizations: expected"),
    "bad unwrap": ('unwrap = ["a."]', 8, "unwrap: 'a.' is not a path"),
    "bad columns": ("columns = 5", 8, "columns: expected"),
    "bad pairs": ("pairs = 5", 8, "pairs: expected"),
}


@pytest.mark.parametrize("problem", WRONG)
def test_an_error_names_file_line_and_reason(tmp_path: Path, problem: str) -> None:
    """A wrong mapping is an error at the start, and the schema refuses what has a wrong type."""
    text, line, reason = WRONG[problem]
    with pytest.raises(ValidationError, match=reason) as error:
        mapping(tmp_path, f"{SMALL}{text}\n")
    number = error.value.message.removeprefix(f"{tmp_path}/mapping.toml:").partition(":")[0]
    assert number in (str(line), str(line + 1))
    if "expected" in reason or "unknown member" in reason or "is unknown" in reason:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(f"{SMALL}{text}\n"), json_schema())


@pytest.mark.parametrize(
    ("replaced", "by", "reason"),
    [
        ('id = "id"', "", "id: is required"),
        ('id = "id"', 'id = { join = ["a"] }', "id: expected"),
        ('id = "id"', 'id = { join = ["a", "b["] }', "id: 'b\\[' is not a path"),
        ('id = "id"', "id = []", "id: expected"),
        ('issued = { kind = "token" }', "", "issued: is required"),
        ('time = "at"', 'time = { path = "at", unit = "m" }', "time: invalid enum"),
        ('time = "at"', 'time = { unit = "s" }', "time: .*`path`"),
        (
            'time = "at"',
            'time = { path = "at", zone = "UTC" }',
            "time: has the unknown member `zone`",
        ),
        ('time = "at"', 'time = { path = "at", or = { path = "x..y" } }', "time: 'x..y' is not"),
        ('agent = "client"', "agent = true", "agent: expected"),
        ('agent = "client"', "agent = []", "agent: expected"),
        ("[my-idp]", "[My IdP]", ":3: "),
        ("[my-idp]", '["My IdP"]', ":1: the name of a format"),
        ("[my-idp]", "", ":1: a mapping is a table"),
        ("[my-idp]", "[a]\n[b]", "has several formats"),
        ("[my-idp]", "[native]", "own format"),
        ("[my-idp]", "[my-idp", ":3: "),
        ('id = "id"', 'id = "id"\nid = "x"', ":6: "),
        ('id = "id"', "id = id", ":5: "),
    ],
)
def test_what_is_missing_or_malformed_is_named(
    tmp_path: Path, replaced: str, by: str, reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason) as error:
        mapping(tmp_path, SMALL.replace(replaced, by))
    assert str(tmp_path) in error.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="nowhere"):
        load_mapping(tmp_path / "nowhere.toml")
    (tmp_path / "latin").write_bytes(b'[a]\nid = "\xe9"')
    with pytest.raises(ValidationError, match="UTF-8"):
        load_mapping(tmp_path / "latin")
    with pytest.raises(ValidationError, match=r"irectory"):
        load_mapping(tmp_path)


def test_one_of_several_formats_is_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(SMALL + SMALL.replace("my-idp", "other").replace('"at"', '"at2"'))
    assert load_mapping(path, "other").name == "other"
    assert reasons(read(load_mapping(path, "other"), lines(RECORD), organization="o")) == {
        "no time": 1
    }
    with pytest.raises(ValidationError, match="has no format third"):
        load_mapping(path, "third")


def outcomes(folder: Path, text: str, *records: Any, **options: Any) -> list[Any]:
    return read(mapping(folder, SMALL + text), lines(*records), **options)


def test_organizations_of_a_mapping_and_of_a_command(tmp_path: Path) -> None:
    """The mapping's own table, the command's table, and the command's organization."""
    text = (
        'organization = "realm"\n[my-idp.organizations]\nr1 = "org-1"\nagents = { a2 = "org-2" }\n'
    )
    records = [
        RECORD | {"realm": "r1"},
        RECORD | {"realm": "r2"},
        RECORD | {"realm": "r2", "client": "a2"},
        RECORD,
    ]
    found = outcomes(tmp_path, text, *records)
    assert [event.tenant_id for event in events(found)] == ["org-1", "r2", "org-2"]
    assert reasons(found) == {"no organization": 1}
    found = outcomes(tmp_path, text + 'default = "org-d"', *records)
    assert [event.tenant_id for event in found] == ["org-1", "org-d", "org-2", "org-d"]
    found = outcomes(tmp_path, text, *records, organization="mine")
    assert [event.tenant_id for event in found] == ["mine"] * 4


def test_ids_are_text_whole_numbers_or_joined(tmp_path: Path) -> None:
    """The first path with a value decides; numbers are exact; long ids become their SHA-256."""
    text = SMALL.replace('id = "id"', 'id = ["id", { join = ["node", "seq"] }]')
    records: list[Any] = [
        {"id": 9007199254740993},
        {"id": 0},
        {"id": None, "node": "n", "seq": 2},
        {"id": "", "node": "n", "seq": "18446744073709551615"},
        {"id": "x" * 255},
        {"id": "x" * 256},
        {"id": "\U0001f600" * 256},
        {"id": 10**300},
        {"id": " A "},
        {"id": True},
        {"id": 1.5},
        {"id": ["x"]},
        {"id": "null"},
        {"node": "n"},
        {"id": "a\nb"},
        {"id": "a\x85b"},
    ]
    found = read(
        mapping(tmp_path, text),
        lines(*({**RECORD, "id": None} | record for record in records)),
        organization="o",
    )
    ids = [event.event_id for event in events(found)]
    assert ids[:5] == ["9007199254740993", "0", "n 2", "n 18446744073709551615", "x" * 255]
    assert [len(one) for one in ids[5:8]] == [64] * 3
    assert len(set(ids)) == len(ids) == 9
    assert ids[8] == " A "
    assert reasons(found) == {"no id": 7}


@pytest.mark.parametrize(
    "client", [None, "", "null", True, 1.5, [], {}, "x" * 256, "a\x00b", "\x9f"]
)
def test_an_agent_that_cannot_be_stored_is_refused(tmp_path: Path, client: Any) -> None:
    """The refusal names the member, and has no value of the record."""
    record = RECORD | {"client": client, "secret": "hunter2"}
    assert outcomes(tmp_path, "", record, organization="o") == ["no agent"]
    assert outcomes(tmp_path, "", RECORD | {"client": 5}, organization="o")[0].agent_id == "5"


def test_a_name_that_cannot_be_stored_is_left_out(tmp_path: Path) -> None:
    """The token counts all the same: names come from people."""
    records = [
        RECORD | {"title": title} for title in ("Name", "x" * 256, "a\nb", "  ", 5, None, [])
    ]
    found = outcomes(tmp_path, 'name = "title"', *records, organization="o")
    assert [event.agent_name for event in found] == ["Name", None, None, None, "5", None, None]


def test_the_last_of_a_repeated_member_counts(tmp_path: Path) -> None:
    """JSON's repeated members are read as most readers do."""
    line = lines(RECORD)[:-2] + ', "client": "a2"}\n'
    (event,) = read(mapping(tmp_path, SMALL), line, organization="o")
    assert event.agent_id == "a2"  # type: ignore[union-attr]  # it is an event


def test_failed_comes_before_issued(tmp_path: Path) -> None:
    """A record that meets both is not counted; is comes before both."""
    text = "is = { client = { present = true } }\nfailed = { error = { present = true } }"
    found = outcomes(
        tmp_path, text, RECORD | {"error": "x"}, RECORD | {"client": None}, {"client": "c"}
    )
    assert found == ["failed", "not an event of this format", "no issuance"]


def test_a_time_in_the_future_or_before_1970_is_refused(tmp_path: Path) -> None:
    times = ["2027-01-01T00:00:00Z", "1969-12-31T23:59:59Z", 5, "soon", None]
    found = outcomes(tmp_path, "", *(RECORD | {"at": at} for at in times), organization="o")
    assert found == ["unusable time"] * 4 + ["no time"]


def test_text_of_a_log_and_json_behind_its_header(tmp_path: Path) -> None:
    """Lines that are not JSON are matched; a header of syslog before JSON or text is skipped."""
    text = r"text = '^(?P<at>\S+) (?P<kind>\w+) id=(?P<id>\w+) client=(?P<client>.*)$'"
    line = "2026-04-01T09:00:00Z token id=e1 client=a1"
    syslog = "<15>1 2026-04-01T09:00:00Z host app 1 ID47 - "
    data = f"{line}\r\n\n{syslog}{line}\n{syslog}{lines(RECORD)}{lines(RECORD)}nonsense\n{{broken\n"
    found = read(mapping(tmp_path, SMALL + text), data, organization="o")
    assert found[:4] == [found[0]] * 4
    assert events(found)[0].event_id == "e1"
    assert found[4:] == ["unreadable"] * 2
    latin = line.encode().replace(b"a1", b"\xe9")
    assert read(mapping(tmp_path, SMALL + text), latin, organization="o") == ["no agent"]


def test_a_group_of_a_text_may_be_the_record(tmp_path: Path) -> None:
    """JSON behind a prefix of any kind; other lines go on as text."""
    text = "text = '^[A-Z]+ (?P<message>.*)$'\nembedded_json = 'message'"
    data = f"INFO {lines(RECORD)}INFO started\nINFO {{broken\n{lines(RECORD)}"
    found = read(mapping(tmp_path, SMALL + text), data, organization="o")
    assert found[1:3] == ["no issuance"] * 2
    assert found[0] == found[3] != "no issuance"
    cut = f"INFO {lines(RECORD)[:-9]}\n"
    assert read(mapping(tmp_path, SMALL + text), cut, organization="o") == ["unreadable"]


def test_cells_of_csv_are_text(tmp_path: Path) -> None:
    """A header with the columns makes a file CSV; a second header may follow."""
    text = 'columns = ["id", "client", "at"]\njson_text = ["more"]\n'
    text = SMALL.replace('kind = "token"', '"more.kind" = "token"') + text
    rows = 'e1,a1,2026-04-01T09:00:00Z,"{""kind"": ""token""}"\n'
    other = "id,at,client,more,x\n" + 'e2,2026-04-01T09:00:00Z,a2,"{""kind"": ""token""}",\n'
    data = "id,client,at,more\n" + rows + "e3,a3\n" + "e4,a4,x,\n" + 'e5,a5,x,"{"\n' + other
    found = read(mapping(tmp_path, text), data, organization="o")
    assert [event.event_id for event in events(found)] == ["e1", "e2"]
    assert reasons(found) == {"unreadable": 2, "no issuance": 1}
    json_lines = lines({"id": "e1", "client": "a1", "at": RECORD["at"], "more": {"kind": "token"}})
    assert events(read(mapping(tmp_path, text), json_lines, organization="o")) == events(found)[:1]


def test_the_documented_mapping_reads_the_documented_record(tmp_path: Path) -> None:
    """The page's example works as it stands there, and its other tables are valid."""
    page = Path("docs/identity-providers/mapping.md").read_text("utf-8")
    blocks = re.findall(r"```(toml|json)\n(.*?)```", page, re.DOTALL)
    (whole, *parts), (record,) = (
        [text for kind, text in blocks if kind == wanted] for wanted in ("toml", "json")
    )
    (event,) = events(read(mapping(tmp_path, whole), record))
    assert event[:3] == ("org-1", "n1 1", "invoice")
    for part in parts:
        if "default" in part:
            read_organizations(tomllib.loads(part))
        else:
            mapping(tmp_path, SMALL + part)
    members = {field.encode_name for field in msgspec.structs.fields(Mapping)}
    assert members == set(
        re.findall(
            r"^\| `(\w+)` \| ",
            page.partition("### Members")[2].partition("### Paths")[0],
            re.MULTILINE,
        )
    )
    documented = set(
        re.findall(
            r"^\| `([a-z][\w-]*)` \| ",
            page.partition("## Formats")[2].partition("## What")[0],
            re.MULTILINE,
        )
    )
    assert documented == formats.FORMATS.keys() - {"ndjson", "csv"}
