"""Labels: what became of an entry, and how much of a label is its own."""
