"""The usual tokens of a day: the median of days of its kind."""

from datetime import date, timedelta

from app.reports.usual_days import days_like, usual, usual_of, usual_weekday, usual_weekend_day

MONDAY = date(2026, 4, 13)
BEGAN = date(2026, 1, 1)


def days(count):
    """Counts of 70 days before MONDAY: 100 on weekdays, 10 at weekends."""
    ago = (MONDAY - timedelta(days=number) for number in range(1, count + 1))
    return {day: 10 if day.isoweekday() >= 6 else 100 for day in ago}


def test_days_like_one_are_its_weekday_in_8_weeks():
    like = days_like(MONDAY)
    assert len(like) == 8
    assert {day.isoweekday() for day in like} == {1}
    assert (like[0], like[-1]) == (date(2026, 4, 6), date(2026, 2, 16))


def test_the_usual_is_a_median_of_at_least_three():
    assert usual([5, 1, 900]) == 5
    assert usual([4, 5]) is None
    assert usual([2, 8, 900, 3]) == 3


def test_the_usual_of_a_day_is_that_of_its_weekday():
    counts = days(70) | {MONDAY - timedelta(weeks=1): 9000}
    assert usual_of(MONDAY, counts, BEGAN) == 100
    assert usual_of(MONDAY - timedelta(days=1), counts, BEGAN) == 10


def test_days_up_to_the_first_tell_nothing():
    """The first day with tokens is not whole, and before it nothing is known."""
    counts = days(70)
    third = MONDAY - timedelta(weeks=3)
    assert usual_of(MONDAY, counts, third) is None
    assert usual_of(MONDAY, counts, third - timedelta(days=1)) == 100
    assert usual_of(MONDAY, counts, None) is None


def test_weekdays_and_weekends_have_their_own():
    last = MONDAY - timedelta(days=1)
    assert usual_weekday(last, days(70), BEGAN) == 100
    assert usual_weekend_day(last, days(70), BEGAN) == 10
    assert usual_weekend_day(last, days(70), MONDAY - timedelta(days=3)) is None
