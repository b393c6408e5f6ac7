"""HTTP: each view parses, asks and shapes. Authentication sits on the blueprints."""
