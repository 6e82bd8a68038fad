"""`python -m sync_worker` is `sync-worker`."""

from sync_worker.cli import main

main()
