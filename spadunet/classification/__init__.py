"""Training of tasks that classify whole studies."""
