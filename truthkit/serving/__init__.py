"""What every HTTP server of truthkit stands on: who may ask, how much, for how long, and when it is one's turn.

Layers of ASGI that take an application and return one (`answers`, `guards`, `bodies`), a line before the model with one
worker (`line`), and the socket (`listening`, `connections`). Nothing here knows what is asked or answered. The packages
of the extra `app` are imported where they are used.
"""
