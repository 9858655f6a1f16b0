"""Scores as pure functions of tensors and of words.

Ranks and hit rates, accuracies, average precision, calibration, intervals and paired tests; linear
probes and votes of neighbours, which turn vectors into such scores; captions and answers, scored as
the scripts of their benchmarks score them.
Ties and numbers that are not finite are never in the model's favour; an empty set scores NaN.
Knows no model, no data set, no file: what a score is computed from arrives as tensors or words.
"""
