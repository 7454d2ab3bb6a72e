"""From data to decisions: fingerprint, target spacing, patch size, plan."""
