"""Alembic's home: ``env.py`` runs the numbered revisions in ``versions/``."""
