"""What people ask: why a subject has what it has, what is wrong, and how much is left to do."""
