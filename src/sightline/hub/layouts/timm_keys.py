"""The names inside a vision transformer of timm.

Source: huggingface/pytorch-image-models, timm/models/vision_transformer.py.
"""


def block_keys(published: str, own: str) -> dict[str, str]:
    """The pairs of the blocks after queries, keys and values were taken apart.

    Args:
        published: where they are in the file, "blocks".
        own: where they are in the network, "transformer.blocks".
    """
    layer, block = f"{published}.*", f"{own}.*"
    return {
        f"{layer}.norm1.*": f"{block}.norm1.*",
        **{f"{layer}.attn.{part}.*": f"{block}.attention.{part}.*" for part in "qkv"},
        f"{layer}.attn.proj.*": f"{block}.attention.out.*",
        f"{layer}.norm2.*": f"{block}.norm2.*",
        f"{layer}.mlp.fc1.*": f"{block}.mlp.fc1.*",
        f"{layer}.mlp.fc2.*": f"{block}.mlp.fc2.*",
    }
