"""A local Content Lake (real GROQ) and a local Clerk, for the demo, the tests and whoever wants to try a query first.

It knows nothing of the worker. Start both with `server.Sandbox`, or `python -m sync_worker.sandbox`.
"""
