"""Studies: one file of models, methods and tasks, run to a table with tests, intervals and verdicts in words.

Two families of comparisons are corrected, each by Holm's method over the whole study: every method against greedy
search in every set, and every method against its strongest control in every set. Controls are no findings, so their
own differences are shown without a corrected p-value and without a verdict.
"""
