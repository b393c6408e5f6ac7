"""Storage: the database. No other package knows which database it is."""
