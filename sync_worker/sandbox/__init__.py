"""A local Content Lake (with real GROQ) and a local Clerk, for the demo, the tests and trying out queries.

Start both with `server.Sandbox`, or with `python -m sync_worker.sandbox`. Nothing here depends on the worker.
"""
