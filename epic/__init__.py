"""The EPIC-KITCHENS datasets: class names."""
