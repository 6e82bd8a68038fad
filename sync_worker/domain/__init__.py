"""Pure rules: whom access is for, what entitlements add up to, what must change, and whether a read is fresh."""
