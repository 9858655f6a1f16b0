"""Task x data x metric: what a model scores on a data set, and pictures of its embeddings.

`zeroshot` and `retrieval` take any object with the public embedding methods and any sequence of
records, and return a `Result` with intervals, every sample and a signature; `compositionality` and
`bias` take contrasts and annotated groups. `figures` draws.
Knows no network, no training and no command line; the scores themselves are in `metrics`.
"""
