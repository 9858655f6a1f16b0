"""Bytes and words to tensors, exactly as each checkpoint was trained.

Decoding that cannot hurt, guarded fetching, resizing, preprocessing, tokenizers, prompts and the
processors that join them. Knows no network and no task; what a checkpoint wants arrives as a frozen
spec, and code here is named by what it does, never by who published it.
"""
