"""Where a name becomes a network: catalogue, download, load, save and the bundled models.

Knows the table of systems, the files of a model folder and the public hub. Must not know any task,
data set or training run, must not name a system except by what its `System` entry says, and never
executes anything that a repository contains.
"""
