"""Web: HTTP. A view parses, asks and shapes; authentication sits on the blueprints."""
