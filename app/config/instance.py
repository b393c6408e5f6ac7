"""The instance folder: the default database, and random keys for development."""

import os
import secrets
import sys
import tempfile
from pathlib import Path

from app.errors import SettingsError


def instance_folder(root: Path) -> Path:
    """The instance folder, created if it is missing.

    In a checkout it is beside the code. For an installed package it is in the virtualenv's
    ``var``, which is also Flask's convention.
    """
    path = root / "instance"
    if root.name in ("site-packages", "dist-packages"):
        path = Path(sys.prefix) / "var" / "agentidp-analytics-instance"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.listdir(path)
    except OSError as error:
        raise SettingsError(
            "DATABASE_URL, SECRET_KEY and JWT_SECRET_KEY", f"must be set: {error}"
        ) from None
    return path


def instance_secret(root: Path, name: str) -> str:
    """A random key, shared by every process that has the same instance folder."""
    path = instance_folder(root) / name.lower()
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as draft:
            draft.write(secrets.token_urlsafe(48))
        try:
            # A link appears complete or not at all. When two processes create it, the first link
            # stays, and both processes read that file.
            os.link(draft.name, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft.name)
    return path.read_text()
