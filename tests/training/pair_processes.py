"""One of several processes that train two towers together; and the same in one process.

    python pair_processes.py RANK SIZE FOLDER

writes the mean loss and the mean gradients of every case into FOLDER.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from sightline.objectives.contrastive import alone, sigmoid_contrastive, softmax_contrastive
from sightline.training.accumulation import cached_contrastive
from sightline.training.distributed import all_gather_with_grad
from sightline.training.ring import ring_exchange

ROWS, PARTS = 12, 2
"""Pairs of all processes, and micro-batches of each."""


class Towers(nn.Module):
    """Two towers with dropout; scale and bias are the loss's."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4))
        self.right = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def embed(self, batch):
        """Pictures, sentences, hard negatives (two a pair), labels."""
        seen, said, wrong, labels = batch
        vectors = self.left(seen), self.right(said), self.right(wrong)
        return (*(F.normalize(rows, dim=-1) for rows in vectors), labels)


def towers():
    torch.manual_seed(2)
    return Towers().double()


def data():
    """The joined batch: features, and labels of which some are shared."""
    generator = torch.Generator().manual_seed(5)
    rows = [(ROWS, 5), (ROWS, 3), (2 * ROWS, 3)]
    features = [torch.randn(*r, generator=generator, dtype=torch.float64) for r in rows]
    return (*features, torch.tensor([0, 1, 2, 0, 3, 4, 5, 1, 6, 7, 0, 8]))


def dealt(batch, number, of):
    return tuple(column.chunk(of)[number] for column in batch)


def label_loss(image, text, labels, scale, gather):
    """Pairs of one label are matches of each other, as in UniCL (Yang et al. 2022)."""
    same = (labels[:, None] == gather(labels)).double()
    loss = 0.0
    for rows, columns in ((image, text), (text, image)):
        log_p = (scale * rows @ gather(columns).T).log_softmax(dim=1)
        loss = loss - ((same * log_p).sum(dim=1) / same.sum(dim=1)).mean()
    return loss


def losses(gather, first_row):
    """The loss of (network, rows) by name; a ring stands in the place of the gather."""
    where = {"gather": gather, "first_row": first_row}

    def softmax(net, rows, **options):
        return softmax_contrastive(rows[0], rows[1], net.scale.exp(), **options, **where)

    def sigmoid(net, rows, **options):
        return sigmoid_contrastive(rows[0], rows[1], net.scale.exp(), net.bias, **options, **where)

    found = {
        "softmax": softmax,
        "sigmoid": sigmoid,
        "softmax in blocks": lambda net, rows: softmax(net, rows, chunk=2),
        "sigmoid in blocks": lambda net, rows: sigmoid(net, rows, chunk=2),
        "smoothed": lambda net, rows: softmax(net, rows, label_smoothing=0.2),
        "softmax, negatives": lambda net, rows: softmax(
            net, rows, negatives=rows[2], label_smoothing=0.2
        ),
        "sigmoid, negatives": lambda net, rows: sigmoid(net, rows, negatives=rows[2]),
    }
    if callable(gather):
        found["labels"] = lambda net, rows: label_loss(
            rows[0], rows[1], rows[3], net.scale.exp(), gather
        )
    return found


def gradients(net):
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in net.named_parameters()
    }


def expected(name, ranks):
    """The joined batch in one process, each rank's micro-batches under that rank's own dropout."""
    net, rows = towers(), []
    for rank in range(ranks):
        torch.manual_seed(rank)
        own = dealt(data(), rank, ranks)
        rows += [net.embed(dealt(own, part, PARTS)) for part in range(PARTS)]
    joined = tuple(torch.cat(column) for column in zip(*rows, strict=True))
    loss = losses(alone, 0)[name](net, joined)
    loss.backward()
    return loss.item(), gradients(net)


def together(name, exchange, rank, ranks):
    """This process's part of a step with cached gradients, averaged over all."""
    net = towers()
    gather = ring_exchange() if exchange == "ring" else all_gather_with_grad
    pair_loss = losses(gather, rank * ROWS // ranks)[name]
    own = dealt(data(), rank, ranks)
    torch.manual_seed(rank)
    step = cached_contrastive(lambda n, batch: n.embed(batch), pair_loss)
    loss = step(net, [dealt(own, part, PARTS) for part in range(PARTS)]).loss
    found = {"loss": torch.tensor(loss, dtype=torch.float64), **gradients(net)}
    for tensor in found.values():
        dist.all_reduce(tensor)
        tensor /= ranks
    return found


def cases():
    """(loss, exchange)"""
    gathered = [(name, "gather") for name in losses(alone, 0)]
    return [*gathered, *((name, "ring") for name in losses(ring_exchange(), 0))]


def main():
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    store = dist.FileStore(folder + "/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    found = {case: together(*case, rank, ranks) for case in cases()}
    if rank == 0:
        torch.save(found, folder + "/found.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
