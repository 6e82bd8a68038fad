"""Verified deliveries become items of the work queue."""
