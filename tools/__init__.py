"""Command-line programs; a package, so that no other `tools` is found in its place."""
