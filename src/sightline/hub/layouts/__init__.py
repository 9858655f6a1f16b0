"""The layouts in which other projects publish the same models, one file each.

Each file says how its folders or files are read into a network of `models`, and, where they can
hold it, how they are written. transformers' own layout is not here: every system in `models` has
it as its first language.
"""
