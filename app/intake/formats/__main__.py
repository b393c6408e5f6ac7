"""``python -m app.intake.formats`` writes the JSON Schema of mapping files, for editors."""

import json
from pathlib import Path

from app.intake.formats.language import json_schema

SCHEMA = Path("docs/identity-providers/mapping.schema.json")

if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(json_schema(), indent=2) + "\n", "utf-8")
