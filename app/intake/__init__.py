"""Intake: events and agent names, from callers and files into the database."""
