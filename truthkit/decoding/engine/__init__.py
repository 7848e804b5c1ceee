"""What every decoding method stands on: decoders, their sessions, views, rows, caches, processors."""
