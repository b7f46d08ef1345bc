"""The package index client, against a real index on loopback."""
