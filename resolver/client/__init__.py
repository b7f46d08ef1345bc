"""The init container's client: the standard library alone."""
