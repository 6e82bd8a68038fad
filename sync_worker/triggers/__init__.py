"""What enqueues subjects without a webhook."""
