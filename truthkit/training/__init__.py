"""LoRA fine-tuning: the amateur that LOL and ICD contrast with, and REFLEX's role-play dialogue."""
