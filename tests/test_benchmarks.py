"""The benchmarks measure the things they name; their numbers do not matter here."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.config.settings import ROOT
from benchmarks.figures import (
    BenchmarkError,
    Failure,
    Figure,
    Rival,
    Samples,
    at_most,
    below,
    faster,
    more,
)
from benchmarks.report import BEGIN, END, write_table


def samples(*values: float) -> Samples:
    return Samples(values, "s")


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (faster("R", "", samples(1, 2, 90), Rival("", samples(2)), 1), True),
        (faster("R", "", samples(2), Rival("", samples(1.9)), 1), False),
        (more("R", "", samples(1, 3, 3), Rival("", samples(2)), 1.5), True),
        (more("R", "", samples(3), Rival("", samples(4)), 1), False),
        (at_most("R", "", samples(8), Rival("", samples(2)), 4), True),
        (at_most("R", "", samples(8.1), Rival("", samples(2)), 4), False),
        (below("R", "", samples(1, 2, 3), 3), True),
        (below("R", "", samples(1, 1, 4), 3), False),
    ],
)
def test_a_limit_is_one_for_the_medians_or_for_every_sample(figure: Figure, reached: bool) -> None:
    assert figure.reached is reached


def test_the_table_replaces_what_stands_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(path, [Failure("S1", "reads", "needs wrk")], "Once.")
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\nOnce.\n\n| row | ")
    assert "| S1 | reads | needs wrk |" in text
    assert "old" not in text
    assert text.endswith(f"|\n{END}\nafter\n")


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("nothing to see\n")
    with pytest.raises(BenchmarkError):
        write_table(path, [], "")
    assert path.read_text() == "nothing to see\n"


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--repetitions=1", "--scale=0.0001", *arguments],
        cwd=ROOT,
        env=variables or None,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_rows_can_be_measured() -> None:
    done = run("R1", "R2", "R3", "R4", "I2", "U1", "B1", "T1")
    assert "Traceback" not in done.stderr
    rows = {line.split()[0] for line in done.stdout.splitlines()[2:] if line}
    assert rows >= {
        "R1a",
        "R1b",
        "R2a",
        "R2b",
        "R3a",
        "R3b",
        "R4a",
        "R4b",
        "I2a",
        "I2d",
        "U1a",
        "U1b",
        "U1c",
        "B1a",
        "T1",
    }


@pytest.mark.slow
def test_rows_over_http_fail_without_wrk() -> None:
    done = run("S3", PATH="/nowhere")
    assert done.returncode == 1
    assert "needs wrk" in done.stdout
