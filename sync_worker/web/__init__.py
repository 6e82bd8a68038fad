"""The ASGI application: webhooks, health, metrics and status pages."""
