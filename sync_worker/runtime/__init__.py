"""Puts the parts together, and runs them until the process ends."""
