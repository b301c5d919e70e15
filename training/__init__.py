"""Training: recipes, the loop, its checkpoints and what it reports."""
