"""Text and tokens: padding, batches, chat templates, prompts, fingerprints."""
