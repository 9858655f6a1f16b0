"""Mutation testing: plant one mistake, run the tests that execute its lines, see whether one fails.

    python -m tests.mutation --sample 300 --seed 0 --rooms models,nn,objectives --jobs 2

`mistakes` knows what can be planted, `planting` where, `coverage` which tests run which lines,
`trial` runs them in a forked process, `report` writes docs/mutation.md.
"""
