"""The commands of ``flask``, and of the script ``agentidp-analytics``."""
