"""The durable half: the work queue, the ledger, the call budget and what reconcile runs leave behind."""
