"""Wheel → layer → bundle: unpack, compile, pack deterministically, and describe the result as an OCI image."""
