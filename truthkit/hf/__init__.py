"""What we know of Hugging Face models: wrappers, blocks, caches, trees, fast layouts. Knows nothing of decoders."""
