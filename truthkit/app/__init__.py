"""A page on this machine to try decoders: a prompt or an image in, answers side by side as they are made."""
