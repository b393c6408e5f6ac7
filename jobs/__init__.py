"""Jobs: scheduled work that counts events into the summary tables and deletes old raw events."""
