"""Small networks behind the protocol of a network that writes.

`Recomputing` remembers words and reads them all again for every token, so that it is right by
construction; `Recurrent` remembers a state; `Table` knows only which token follows which.
"""

import torch
from torch import nn

from sightline.core.interfaces import Prompt


def prompt_of(rows):
    """Rows of ids, padded on the right with what no test writes."""
    longest = max(map(len, rows), default=0)
    ids = torch.full((len(rows), longest), 3)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = True
    return Prompt(ids, mask)


class WordsCache:
    """The ids of each row, and how many still fit."""

    def __init__(self, rows, room):
        self.rows, self.room = rows, room

    @property
    def lengths(self):
        return torch.tensor([len(row) for row in self.rows])

    def select(self, rows):
        chosen = rows.tolist()
        return WordsCache([list(self.rows[r]) for r in chosen], [self.room[r] for r in chosen])


class Recomputing:
    """Any causal function from int64[B, T] to scores [B, T, V], computed anew for every token."""

    def __init__(self, forward):
        self.forward = forward
        self.rows_read = []
        """How many rows each call read."""

    def prefill(self, prompt, room):
        rows = [ids[own].tolist() for ids, own in zip(*prompt[:2], strict=True)]
        cache = WordsCache([[] for _ in rows], [len(row) + room for row in rows])
        scores = self._grow(rows, cache)
        lengths = torch.tensor([len(row) for row in rows])
        return scores[torch.arange(len(rows)), lengths - 1], cache

    def extend(self, ids, cache, mask=None):
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        rows = [row[own].tolist() for row, own in zip(ids, mask, strict=True)]
        new = self._grow(rows, cache)
        return nn.functional.pad(new, (0, 0, 0, ids.shape[1] - new.shape[1]))

    def _grow(self, rows, cache):
        """Append the rows: the scores behind their tokens, [B, longest, V], 0 in the padding."""
        before = cache.lengths
        for kept, row, room in zip(cache.rows, rows, cache.room, strict=True):
            kept += row
            assert len(kept) <= room, "more is written than there is room for"
        self.rows_read.append(len(rows))
        with torch.no_grad():
            scores = self.forward(prompt_of(cache.rows).ids)  # padding is behind, and unseen
        longest = max(map(len, rows))
        picked = torch.zeros(len(rows), longest, scores.shape[-1])
        for place, row in enumerate(rows):
            start = int(before[place])
            picked[place, : len(row)] = scores[place, start : start + len(row)]
        return picked


class StateCache:
    def __init__(self, state, lengths):
        self.state, self.lengths = state, lengths

    def select(self, rows):
        return StateCache(self.state[rows], self.lengths[rows])


class Recurrent(nn.Module):
    """A small recurrent network: its cache is one state a row."""

    def __init__(self, vocabulary=11, width=16, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.words = nn.Embedding(vocabulary, width)
            self.cell = nn.GRUCell(width, width)
            self.scores = nn.Linear(width, vocabulary)
        for parameter in self.parameters():
            parameter.data *= 3
        self.eval().requires_grad_(False)

    def prefill(self, prompt, room):
        rows = len(prompt.ids)
        cache = StateCache(torch.zeros(rows, self.cell.hidden_size), torch.zeros(rows).long())
        scores = self.extend(prompt.ids, cache, prompt.mask)
        return scores[torch.arange(rows), cache.lengths - 1], cache

    def extend(self, ids, cache, mask=None):
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        columns = []
        for column, own in zip(ids.T, mask.T, strict=True):
            state = self.cell(self.words(column), cache.state)
            cache.state = torch.where(own[:, None], state, cache.state)
            columns.append(self.scores(cache.state))
        cache.lengths = cache.lengths + mask.sum(dim=1)
        return torch.stack(columns, dim=1)


class Table(Recomputing):
    """Scores by the last token alone: row `i` of the table is what follows token `i`."""

    def __init__(self, table):
        super().__init__(lambda ids: table[ids])
        self.table = table


def steps(*pairs, size):
    """A table in which one token surely follows another: (token, next) pairs."""
    table = torch.zeros(size, size)
    for token, following in pairs:
        table[token, following] = 30.0
    return Table(table)


def tiny_llama(seed, vocabulary=17):
    """transformers' own network with random weights; any scale but the default's near-uniform."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformers.LlamaForCausalLM(config).eval()
        for parameter in network.parameters():
            parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return network


def behind_the_protocol(network):
    """A transformers network as one of ours."""
    return Recomputing(lambda ids: network(ids, use_cache=False).logits)


def theirs(network, prompt, **options):
    """transformers' `generate`; rows are padded on the left, as it wants them."""
    ids = torch.full_like(prompt.ids, 0)
    mask = torch.zeros_like(prompt.mask)
    for row, own in enumerate(prompt.mask):
        count = int(own.sum())
        ids[row, len(own) - count :] = prompt.ids[row, own]
        mask[row, len(own) - count :] = True
    return network.generate(
        ids, attention_mask=mask.long(), return_dict_in_generate=True, output_scores=True, **options
    )
