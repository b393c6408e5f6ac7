"""Settings pages: what an administrator of an organization sets, with forms that need no script."""
