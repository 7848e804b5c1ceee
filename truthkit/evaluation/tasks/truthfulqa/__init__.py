"""TruthfulQA: choices by likelihood, and written answers."""
