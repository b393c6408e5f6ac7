"""Formats: the mapping language, each shipped format, and how a format is recognised."""
