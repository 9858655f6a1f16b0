"""Blocks: tensors to tensors, shared by every system.

Attention, masks, patches, positions, norms, feed-forward layers, pooling and number types. A block
takes plain keywords, holds no configuration object, and knows no paper, file or checkpoint name.
"""
