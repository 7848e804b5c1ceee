"""CHAIR: objects that a description of an image invents."""
