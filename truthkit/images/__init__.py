"""Images before a model sees them: reading, RITUAL's transforms, VCD's noise.

Empty on purpose: reading and transforming need Pillow and numpy only, and `noise` alone imports torch.
"""
