"""Tokens, and whose they are."""
