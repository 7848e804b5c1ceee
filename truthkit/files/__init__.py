"""Reading what people hand us and writing what must not be lost."""
