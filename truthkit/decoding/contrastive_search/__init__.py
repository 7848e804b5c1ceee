"""Contrastive search: candidates read as a tree of one row, ranked, the winner kept."""
