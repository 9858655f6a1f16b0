"""What each paper did: one file per published system, readable from top to bottom.

Header with the citation, frozen config, table of variants, network, preprocessing, checkpoint
names; at the end the `SYSTEM` entry, which is all that a loader needs. `table` lists the files.
Constructing a network builds it and does nothing else: no files, no devices, no tokenizers.
"""
