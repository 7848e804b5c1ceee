"""From contrastive pairs to a steering vector: encoding, reading, methods, held-out scores."""
