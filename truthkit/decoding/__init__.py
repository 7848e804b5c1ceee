"""Decoding methods: each compares the model with other *views* of the same text.

`engine` is what they share, `methods` has a file for each, `contrastive_search` is a search of its own. `discovery`,
`spec` and `catalog` know them by name, without importing torch; the classes themselves are in `truthkit`.
"""
