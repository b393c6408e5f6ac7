"""Identity providers that are really started, on loopback: see ``tests.providers.running``."""
