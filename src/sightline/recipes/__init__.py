"""Runs: where model, data, objective and evaluation meet, one Python function each.

A recipe is a frozen dataclass of settings and a function that carries it out; `table` lists them
by the name that `sightline train` takes. A derived run calls another and changes its fields.
"""
