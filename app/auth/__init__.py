"""Authentication: verify an access token and read its caller."""
