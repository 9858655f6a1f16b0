"""The next token: from the scores of a network to text, and from text to its probability.

`text` writes, greedily or by chance, and streams; `beams` searches; `scoring` says how likely given
texts are; `constraints` says what may be written at all; `contracts` proves that a network fits.
An engine that batches requests as they come, and drafts that a larger network checks, belong beside
`text`: they too are loops over `core.interfaces.TextGenerator`.

Knows no architecture, no tokenizer, no template and no file. Networks come in as the Protocol,
prompts as tensors, and words only through a callable from ids to text.
"""

from sightline.core.lazy import lazy_names

_PUBLIC = {
    "Choices": "sightline.generation.constraints",
    "Generated": "sightline.generation.answers",
    "GenerationOptions": "sightline.generation.options",
    "beam_search": "sightline.generation.beams",
    "generate": "sightline.generation.text",
    "read_options": "sightline.generation.options",
    "score": "sightline.generation.scoring",
    "stream": "sightline.generation.text",
}

__getattr__ = lazy_names(__name__, _PUBLIC)
