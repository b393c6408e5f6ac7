"""Reports: numbers read from the summary tables; one file for each report."""
