"""From an image and a model to a label map in the image's own space."""
