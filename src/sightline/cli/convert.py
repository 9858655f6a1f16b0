"""`sightline convert MODEL --to LAYOUT --out FOLDER`: another project's layout, proved equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call

if TYPE_CHECKING:
    from sightline.hub.proof import Proof

_LAYOUTS = ("transformers", "openai", "open_clip", "ait", "onnx")


@click.command()
@click.argument("name", metavar="[MODEL]", required=False)
@click.option("--to", required=True, type=click.Choice(_LAYOUTS), help="The layout to write.")
@click.option("--out", required=True, metavar="FOLDER", help="Where to write it.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub model.")
@click.option("--allow-pickle", is_flag=True, help="Read weights that exist only as a pickle.")
@shared_options(adapter=False)
def convert(
    call: Call, name: str | None, to: str, out: str, revision: str | None, allow_pickle: bool
) -> int:
    """Write a model in another project's layout, and prove that it is the same.

    MODEL is a hub id, a known name, or a folder or file in the layout of transformers, OpenAI's
    CLIP, open_clip, timm (ViT) or big_vision (npz of ViT, SigLIP or LiT), or the npz of a mask
    codec ("ait"). The result is read back and compared with the source on the same pictures and
    words before it takes its place; --dtype is the number type to store (default: as in the
    source).

    The layout "onnx" is a graph for each tower, which onnxruntime runs without this library; it is
    compared by onnxruntime, in batches of 1 and 3.
    """
    from sightline.hub.convert import convert as converted

    wanted = name or call.model_name
    if wanted is None:
        raise click.UsageError("give the MODEL to convert: a name, a folder or a file")
    call.model = wanted
    dtype = None if call.dtype == "auto" else call.dtype
    proof = converted(wanted, to, out, dtype, revision, allow_pickle)
    _show(call, proof)
    call.document({"to": to, "out": str(Path(out)), "proof": proof.to_dict()})
    return 0


def _show(call: Call, proof: Proof) -> None:
    rows = [
        (f"largest difference of the {name}", "0, equal in every bit" if not gap else f"{gap:.3g}")
        for name, gap in proof.differences.items()
    ]
    rows += [(f"changed by rounding: {name}", f"{gap:.3g}") for name, gap in proof.rounding.items()]
    if proof.tensors:
        rows.append(("tensors equal", f"{proof.equal_tensors} of {proof.tensors}"))
    rows += [
        ("parameters", f"{proof.parameters:,}"),
        ("tokens", proof.tokens),
        ("bytes", f"{proof.bytes:,}"),
    ]
    call.table(("proof", "value"), rows)
