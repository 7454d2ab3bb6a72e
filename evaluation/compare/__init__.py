"""From the scores of several models on the same cases to what their difference is worth."""
