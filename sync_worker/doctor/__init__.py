"""Checks of an installation, for the person who sets it up."""
