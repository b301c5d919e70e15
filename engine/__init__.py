"""Runs over many clips: what they share about processes and resuming."""
