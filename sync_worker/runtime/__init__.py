"""Put the parts together, and run them until the process ends."""
