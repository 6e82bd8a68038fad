"""Keeps access in Clerk equal to the entitlements published in Sanity."""

__version__ = "0.1.0"
