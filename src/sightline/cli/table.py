"""The table of commands. `sightline --help` reads nothing else."""

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """One command."""

    target: str
    """module:function, inside `sightline.cli`."""
    summary: str
    section: str


START = "Begin"
PICTURES = "Pictures and words"
DATA = "Data"
TRAIN = "Training and measuring"
SECTIONS = (START, PICTURES, DATA, TRAIN)

COMMANDS: Mapping[str, Entry] = {
    "demo": Entry("demo:demo", "Show what Sightline can do, on drawn pictures, offline", START),
    "models": Entry("models:models", "List the models that are known by name", START),
    "info": Entry("info:info", "Describe a model: size, preprocessing, files, licence", START),
    "pull": Entry("pull:pull", "Fetch a model from the hub for later use offline", START),
    "embed": Entry("embed:embed", "Turn pictures or texts into vectors", PICTURES),
    "similarity": Entry("similarity:similarity", "Score every picture with every text", PICTURES),
    "classify": Entry("classify:classify", "Say which of these labels fits each picture", PICTURES),
    "tag": Entry("tag:tag", "Find all words that fit each picture", PICTURES),
    "retrieve": Entry("retrieve:retrieve", "Search pictures by words or by a picture", PICTURES),
    "ask": Entry("ask:ask", "Answer a question about each picture", PICTURES),
    "match": Entry("match:match", "Say how likely each text describes the picture", PICTURES),
    "data inspect": Entry("data:inspect", "Report what a data set holds and what is wrong", DATA),
    "data park": Entry("data:park", "Draw parks: pictures with captions and exact truth", DATA),
    "data digits": Entry("data:digits", "Write the handwritten digits as captioned pictures", DATA),
    "train": Entry("train:train", "Train a model by a recipe; a rerun goes on", TRAIN),
    "eval zeroshot": Entry("evaluate:zeroshot", "Measure classification by labels alone", TRAIN),
    "eval retrieval": Entry("evaluate:retrieval", "Measure search in both directions", TRAIN),
    "compare": Entry("compare:compare", "Say whether two evaluations really differ", TRAIN),
    "bench embed": Entry("bench:embed", "Measure how fast pictures are embedded here", TRAIN),
}
"""Full name to where the command is; a name of two words is a command of a group."""

GROUPS: Mapping[str, str] = {
    "data": "Look at data sets, and write drawn or handwritten ones.",
    "eval": "Measure a model on a data set.",
    "bench": "Measure speed on this machine.",
}
