"""Alerts: what tells people before, or when, something matters."""
