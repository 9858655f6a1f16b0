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
    "plan": Entry("plan:plan", "Predict what a run needs in memory, and what fits", START),
    "convert": Entry("convert:convert", "Write a model in another project's layout", START),
    "embed": Entry("embed:embed", "Turn pictures or texts into vectors", PICTURES),
    "similarity": Entry("similarity:similarity", "Score every picture with every text", PICTURES),
    "classify": Entry("classify:classify", "Say which of these labels fits each picture", PICTURES),
    "tag": Entry("tag:tag", "Find all words that fit each picture", PICTURES),
    "retrieve": Entry("retrieve:retrieve", "Search pictures by words or by a picture", PICTURES),
    "index add": Entry("index_add:add", "Add pictures to an index on disk", PICTURES),
    "index search": Entry("index_search:search", "Search an index by words or a picture", PICTURES),
    "index duplicates": Entry(
        "index_search:duplicates", "Find pictures that are nearly the same", PICTURES
    ),
    "index remove": Entry("index_care:remove", "Take pictures out of an index", PICTURES),
    "index info": Entry("index_care:info", "Describe an index: pictures, model, state", PICTURES),
    "index repair": Entry("index_care:repair", "Make a damaged index whole again", PICTURES),
    "index recall": Entry("index_care:recall", "Compare searches with exact ones", PICTURES),
    "caption": Entry("caption:caption", "Write a sentence about each picture", PICTURES),
    "chat": Entry("chat:chat", "Talk about pictures", PICTURES),
    "detect": Entry("detect:detect", "Find things: a box for each", PICTURES),
    "segment": Entry("segment:segment", "Cut things out: a mask for each", PICTURES),
    "ask": Entry("ask:ask", "Answer a question about each picture", PICTURES),
    "match": Entry("match:match", "Say how likely each text describes the picture", PICTURES),
    "explain": Entry("explain:explain", "Show which pixels spoke for a text", PICTURES),
    "filter": Entry("filter:filter_", "Lay convolution masks over pictures", PICTURES),
    "features": Entry("features:features", "Show what the units of a network look for", PICTURES),
    "data inspect": Entry("data:inspect", "Report what a data set holds and what is wrong", DATA),
    "data park": Entry("data:park", "Draw parks: pictures with captions and exact truth", DATA),
    "data convert": Entry("data_convert:convert", "Write a data set in another layout", DATA),
    "data filter": Entry("data_filter:filter", "Keep the records that pass every rule", DATA),
    "data dedup": Entry("data_dedup:dedup", "Find copies, and test pictures in training", DATA),
    "data split": Entry("data_split:split", "Part a data set, copies on one side", DATA),
    "data report": Entry("data_report:report", "Measure what a data set is worth", DATA),
    "data digits": Entry("data:digits", "Write the handwritten digits as captioned pictures", DATA),
    "train": Entry("train:train", "Train a model by a recipe; a rerun goes on", TRAIN),
    "sweep": Entry("sweep:sweep", "Train with several settings; the best held-out first", TRAIN),
    "eval zeroshot": Entry("evaluate:zeroshot", "Measure classification by labels alone", TRAIN),
    "eval classify": Entry("evaluate:classify", "Measure a classifier on its own labels", TRAIN),
    "eval linear-probe": Entry("probes:linear_probe", "Measure a line on frozen vectors", TRAIN),
    "eval knn": Entry("probes:knn", "Measure the nearest labelled pictures", TRAIN),
    "eval few-shot": Entry("probes:few_shot", "Measure a probe of few pictures a class", TRAIN),
    "eval retrieval": Entry("evaluate:retrieval", "Measure search in both directions", TRAIN),
    "eval caption": Entry("answers:caption", "Measure captions against those of people", TRAIN),
    "eval vqa": Entry("answers:vqa", "Measure answers to questions about pictures", TRAIN),
    "eval docvqa": Entry("answers:docvqa", "Measure what is read off documents", TRAIN),
    "eval chartqa": Entry("answers:chartqa", "Measure what is read off charts", TRAIN),
    "eval hallucination": Entry(
        "answers:hallucination", "Measure whether things are seen that are not there", TRAIN
    ),
    "eval mcq": Entry("answers:mcq", "Measure which of given choices is taken", TRAIN),
    "eval grounding": Entry(
        "grounding:grounding", "Measure the boxes given for expressions", TRAIN
    ),
    "eval detect": Entry("grounding:detect", "Measure the boxes of all that is labelled", TRAIN),
    "eval segment": Entry("grounding:segment", "Measure the masks given for labels", TRAIN),
    "eval compositionality": Entry(
        "compositionality:compositionality", "Measure whether word order and words count", TRAIN
    ),
    "eval bias": Entry("bias:bias", "Measure whether groups are treated differently", TRAIN),
    "eval explain": Entry("evaluate:explain", "Measure explanations against the truth", TRAIN),
    "rescore": Entry("rescore:rescore", "Score kept answers by another metric", TRAIN),
    "compare": Entry("compare:compare", "Say whether two evaluations really differ", TRAIN),
    "bench data": Entry("bench_data:data", "Measure how fast tars of pictures are read", TRAIN),
    "bench stream": Entry("bench_stream:stream", "Measure how workers stream pictures", TRAIN),
    "bench embed": Entry("bench:embed", "Measure how fast pictures are embedded here", TRAIN),
    "bench generate": Entry(
        "bench_generate:generate", "Measure how fast answers are written here", TRAIN
    ),
    "bench objectives": Entry(
        "bench_objectives:objectives", "Measure the memory that contrastive losses take", TRAIN
    ),
    "bench step": Entry("bench_step:step", "Measure how long a step of training takes", TRAIN),
    "bench open-set": Entry(
        "bench_open_set:open_set", "Compare what a new class costs two kinds of model", TRAIN
    ),
    "bench search": Entry(
        "bench_search:search", "Measure indexing and search beside plain LanceDB", TRAIN
    ),
    "bench plan": Entry("bench_plan:plan", "Check predicted memory by measuring it", TRAIN),
}
"""Full name to where the command is; a name of two words is a command of a group."""

GROUPS: Mapping[str, str] = {
    "index": "Keep pictures in an index on disk, and search it by words or pictures.",
    "data": "Look at data sets, clean, part and convert them, and write drawn ones.",
    "eval": "Measure a model on a data set.",
    "bench": "Measure speed, memory and approaches on this machine.",
}
