"""Work off the queue: the claim loop, the handlers of each kind of work, and the full reconcile."""
