"""Checkpoints and downloads; a package, so that no other `weights` is found in its place."""
