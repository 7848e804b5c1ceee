"""FACTOR: is the true completion likelier than false ones."""
