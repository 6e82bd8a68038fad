"""Clerk's Backend API: what it holds, and the one way to write to it."""
