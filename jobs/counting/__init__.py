"""Counting: adds every event exactly once to the summary tables."""
