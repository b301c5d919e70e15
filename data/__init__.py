"""Clips, frames, class names; a package, so that no other `data` is found in its place."""
