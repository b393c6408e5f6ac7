"""Recount: prove the summary tables against the raw events, and repair them."""
