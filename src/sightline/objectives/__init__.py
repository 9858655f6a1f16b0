"""Losses: pure functions of tensors, with the gather across devices as an argument.

Knows no network, no batch format and no loop; a loss returns one float32 scalar.
"""
