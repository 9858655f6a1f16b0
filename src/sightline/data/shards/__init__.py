"""Data sets in few large files: tars of samples, Parquet and Arrow tables, read in place.

A picture is a range of a tar or a cell of a table until somebody asks for its bytes, so that a set
may have many millions. Nothing is unpacked and nothing is fetched; files only, no addresses. Must
not know how pictures are decoded or batched.
"""
