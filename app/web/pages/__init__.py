"""Pages for browsers: the dashboard and sign-in."""
