"""The service: what HTTP and the command line see."""

__version__ = "0.1.0"
