"""The service: its HTTP API, its pages and its commands."""

__version__ = "0.1.0"
