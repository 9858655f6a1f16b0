"""What stays in a data set and where it goes: filters, duplicates, leaks, splits, a report.

Pictures are compared by fingerprints, vectors and captions; lists of what stays are files that
`open_dataset` reads again. Knows records and no format; must not know how any of them is stored.
"""
