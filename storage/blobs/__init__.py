"""Blob stores: contents by digest."""
