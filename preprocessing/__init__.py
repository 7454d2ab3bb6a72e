"""From a raw image to a case, and back."""
