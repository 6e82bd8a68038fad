"""Sanity's Content Lake: the client, the rows of the projection, and the webhook configuration."""
