"""Wheel → layer → bundle."""
