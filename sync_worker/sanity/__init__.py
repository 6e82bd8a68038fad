"""Sanity's Content Lake: queries, rows, and the webhook's configuration."""
