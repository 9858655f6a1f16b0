"""What a person asks for: a vector, a label, a tag, a search hit, an answer; one file each.

`model` is the object that `sightline.load` returns; its methods are one line each and lead to the
file of the task. A task takes sources (paths, addresses, bytes, pictures) and words, batches them
through the network of a loaded model and returns plain answers on the CPU.

Must not know: how a network computes, where its weights come from, how answers are scored against
a data set, or the command line.
"""

from sightline.core.lazy import lazy_names

_PUBLIC = {
    "Embeddings": "sightline.tasks.embeddings",
    "Index": "sightline.tasks.index",
    "Failed": "sightline.tasks.batching",
    "Model": "sightline.tasks.model",
    "Report": "sightline.tasks.report",
    "contact_sheet": "sightline.tasks.sheets",
    "load": "sightline.tasks.model",
    "retrieve": "sightline.tasks.retrieve",
    "score_choices": "sightline.tasks.ask",
    "write_tags": "sightline.tasks.xmp",
}

__getattr__ = lazy_names(__name__, _PUBLIC)
