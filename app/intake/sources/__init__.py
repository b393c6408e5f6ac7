"""Sources: files that are followed, and logs of providers that are pulled."""
