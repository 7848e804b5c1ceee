"""Answers: one prompt under one decoder, explained token by token."""
