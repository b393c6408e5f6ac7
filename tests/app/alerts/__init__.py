"""Tests of app.alerts."""
