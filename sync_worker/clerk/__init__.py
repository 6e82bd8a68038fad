"""Clerk's Backend API: reading metadata, and the one way to write it."""
