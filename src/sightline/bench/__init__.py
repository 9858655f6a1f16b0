"""Speed against peers, side by side in one run; the only room that may import them.

A peer that is not installed is named and skipped. Medians of alternating rounds, losses included.
"""
