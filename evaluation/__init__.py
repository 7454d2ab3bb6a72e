"""From a prediction and a reference to scores."""
