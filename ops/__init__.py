"""Backbones and their parts; a package, so that no other `ops` is found in its place."""
