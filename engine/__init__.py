"""Runs over many clips, and what they find."""
