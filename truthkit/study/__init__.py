"""A study: models, decoders, tasks and seeds in one file, run and judged honestly."""
