"""Settings: every variable that an operator sets."""
