"""The work on a schedule: counting new events into the summary tables."""
