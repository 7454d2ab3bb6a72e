"""Training of a backbone and its tasks."""
