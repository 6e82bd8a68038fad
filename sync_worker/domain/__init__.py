"""Pure rules without I/O: subjects, merging entitlements into access, diffing it with Clerk, and freshness of reads."""
