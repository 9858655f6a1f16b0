"""The first minute: the bundled models at work on drawn parks, and one report for a person.

`run` is the way in; `pictures` draws what is shown and measured, `answers` asks the model,
`composite` puts the best-known picture together, `page` writes the report. Knows tasks, evaluation
and the park; must not know networks, checkpoints or the command line.
"""
