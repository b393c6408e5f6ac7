"""Reports: numbers out of the summary tables, one file a report."""
