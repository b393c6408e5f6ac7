"""Web: HTTP routes. A view parses, asks and shapes; access sits on the blueprint."""
