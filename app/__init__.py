"""The service: what HTTP and the command line see."""
