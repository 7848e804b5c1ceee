"""How a benchmark is run: tasks and items, asking, records, the run's folder, data from the hub."""
