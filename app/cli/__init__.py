"""The commands: ``flask …``."""
