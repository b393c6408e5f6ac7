"""Web: HTTP routes. A view parses a request, calls a function and shapes the response.

Blueprints check access, before any view runs.
"""
