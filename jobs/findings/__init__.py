"""Findings: judges the counts of organizations in the background, and stores what is unusual.

The rules are in ``app.detection``. This package reads what they need from the summary tables, and
never from the events, except to see which organizations have new ones.

- ``task``: what a scheduler does at each tick: the organizations that changed, then those that are
  due. Each organization is due at the end of each hour, after its usual delivery delay.
- ``claim``: one scheduler judges at a time, and a judge that has lost its claim stores nothing.
- ``noting``: which organizations have new events, on which days, and how late these arrive.
- ``counts``: the rows of the summary tables, as the rules read them.
- ``judging``: the whole days of an organization in order, then the days that are not over.
- ``storing``: compares the findings with the stored ones, and writes the difference.
- ``recompute``: judges whole days of the past anew.

A day is judged for good when it is over and delivered, from its tables alone. Before, the same
rules judge the hours so far, and the whole day's judgement replaces what they found.
"""
