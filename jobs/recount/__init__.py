"""Recount: compare the summary tables with the raw events, and repair them."""
