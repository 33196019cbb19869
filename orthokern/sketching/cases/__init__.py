"""Examples of the sketching family, and how its results are judged."""
