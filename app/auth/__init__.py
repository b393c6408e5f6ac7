"""Auth: the caller of a request, from an access token."""
