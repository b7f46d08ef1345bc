"""Talking to package indexes: reading project pages, bringing wheels in."""
