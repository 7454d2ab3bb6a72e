"""How published results were measured, so that ours can stand beside them."""
