"""The EPIC-KITCHENS datasets: class names, score files, submissions."""
