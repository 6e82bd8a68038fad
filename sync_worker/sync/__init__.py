"""The path every subject takes: read until fresh, plan, guard, apply."""
