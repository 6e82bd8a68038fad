"""Keeps access in Clerk equal to the entitlements published in Sanity."""

__version__ = "0.1.0"
REPOSITORY = "https://github.com/sanity-clerk-sync/sanity-clerk-sync"
DOCUMENTATION = f"{REPOSITORY}/blob/main/docs"
