"""Settings: environment variables, declared, parsed and documented in one place."""
