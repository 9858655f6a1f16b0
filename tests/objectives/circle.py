"""A ring of threads that stands for one of devices, and the shares of a batch that they hold."""

from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import torch

from sightline.objectives.exchange import Ring


def rings(size):
    """One ring a rank; what is passed on waits in the next one's queue."""
    inboxes = [Queue() for _ in range(size)]

    def make(rank):
        def pass_on(tensors):
            inboxes[(rank + 1) % size].put(tuple(tensor.clone() for tensor in tensors))
            return inboxes[rank].get(timeout=20)

        return Ring(rank, size, pass_on)

    return [make(rank) for rank in range(size)]


def around(size, work):
    """`work(ring)` of every rank at the same time; the results in the order of the ranks."""
    with ThreadPoolExecutor(size) as pool:
        return [job.result() for job in [pool.submit(work, ring) for ring in rings(size)]]


def share(tensor, rank, size):
    """The rank's rows as a leaf of its own."""
    return tensor.detach().chunk(size)[rank].clone().requires_grad_()


def together(size, joined, shared, loss):
    """The mean loss of all ranks, and the gradients that averaging them gives.

    Args:
        joined: tensors whose rows are dealt out.
        shared: parameters that every rank has.
        loss: (rows of the rank, parameters, ring) to the rank's loss.
    """

    def work(ring):
        rows = [share(tensor, ring.rank, size) for tensor in joined]
        known = [tensor.detach().clone().requires_grad_() for tensor in shared]
        value = loss(rows, known, ring)
        return value.detach(), torch.autograd.grad(value, [*rows, *known])

    values, gradients = zip(*around(size, work), strict=True)
    columns = list(zip(*gradients, strict=True))
    of_rows = [torch.cat(parts) / size for parts in columns[: len(joined)]]
    of_shared = [sum(parts) / size for parts in columns[len(joined) :]]
    return sum(values) / size, [*of_rows, *of_shared]
