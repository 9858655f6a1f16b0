"""The layouts of published sets that ask, answer, talk and mark: questions, conversations, regions.

Each file reads what one family of sets publishes into records; `detect` tells them apart. Knows no
model and no prompt: what is asked of a model is made of records elsewhere.
"""
