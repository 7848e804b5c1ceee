"""Open-ended continuation: repetition, diversity, coherence, MAUVE."""
