"""Charts: round axes, and bars that stay within the plot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.pages.charts import Bar, Chart, short, spark_path


def bar(count, before=None):
    return Bar(count, ("Mon 2 Nov", f"{count} tokens"), before=before)


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0, ["0", "1"]),
        (1, ["0", "1"]),
        (3, ["0", "1", "2", "3"]),
        (10_774, ["0", "2.5k", "5k", "7.5k", "10k", "12.5k"]),
        (10**12, ["0", "200G", "400G", "600G", "800G", "1T"]),
    ],
)
def test_the_axis_is_round(highest, ticks):
    assert Chart([bar(highest), bar(highest)]).ticks == ticks


@given(st.lists(st.tuples(st.integers(0, 10**13), st.none() | st.integers(0, 10**13)), min_size=1))
def test_every_bar_lies_within_the_plot(counts):
    chart = Chart([bar(*count) for count in counts])
    assert 2 <= len(chart.ticks) <= 7
    for place in chart.places:
        assert 0 <= place.top <= 100
        assert place.is_cut == (place.bar.count > chart.top)
    assert all(place.is_cut <= (place.bar.count == chart.highest) for place in chart.places)


def test_a_bar_that_dwarfs_all_others_is_cut():
    chart = Chart([bar(100, 90), bar(120, 95), bar(9000, 100)])
    assert [place.is_cut for place in chart.places] == [False, False, True]
    assert chart.places[2].mark == "9k"
    assert chart.places[0].top < 50  # the others are to be seen
    assert not Chart([bar(9000), bar(0)]).places[0].is_cut


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1059, "1.05k"),
        (12_500_000, "12.5M"),
        (10**15, "1000T"),
    ],
)
def test_short_counts(count, text):
    assert short(count) == text


def test_a_sparkline_has_no_bar_for_nothing():
    assert spark_path([0, 12, 1], 12) == "M1 12V0M2 12V11"
    assert spark_path([0, 1, 10**12], 10**12) == "M1 12V11.5M2 12V0"
    assert spark_path([23], 24) == "M0 12V.5"
    assert spark_path([0], 0) == ""
