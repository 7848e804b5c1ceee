"""OPERA: beam search with a penalty for over-trust, and roll-back."""
