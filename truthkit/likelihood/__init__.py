"""How likely a text is under a model or a decoder, what texts begin with read once."""
