"""Decoding methods, one file each: a `Decoder` subclass with a `name`, and its processor form."""
