"""Counting: every event exactly once, into the summary tables."""
