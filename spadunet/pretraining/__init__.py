"""Self-supervised pre-training: the tokenizer, then masked image modelling."""
