"""Telemetry: logs, metrics and traces, for operators."""
