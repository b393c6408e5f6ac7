"""The pages for people: dashboard and sign-in."""
