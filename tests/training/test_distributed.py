"""Two processes with a gather that gradients pass through are one process with both batches."""

import json
import os
import subprocess
import sys

import torch
from torch.nn import functional as F

from sightline.objectives.contrastive import alone
from sightline.training.distributed import (
    all_gather_with_grad,
    rank,
    world_size,
)

PROGRAM = """
import json, sys
import torch
import torch.distributed as dist
from torch.nn import functional as F
from sightline.training.distributed import all_gather_with_grad, rank, world_size

number, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
store = dist.FileStore(folder + "/store", 2)
dist.init_process_group("gloo", store=store, rank=number, world_size=2)
generator = torch.Generator().manual_seed(0)
rows = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
weight = torch.randn(4, 4, dtype=torch.float64, generator=generator).requires_grad_()
joined = all_gather_with_grad(rows[number] @ weight)
loss = F.cross_entropy(joined @ joined.T, torch.arange(6).flip(0))
loss.backward()
dist.all_reduce(weight.grad)
weight.grad /= 2
if number == 0:
    print(json.dumps([rank(), world_size(), joined.tolist(), weight.grad.tolist()]))
dist.destroy_process_group()
"""


def test_gather_over_two_processes_gives_the_gradient_of_the_joined_batch(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    runs = [
        subprocess.Popen(
            [*command, str(number), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=100) for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs[0][1][-2000:]
    number, size, joined, gradient = json.loads(outputs[0][0])
    assert (number, size) == (0, 2)

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 4, dtype=torch.float64, generator=generator).requires_grad_()
    expected = rows @ weight
    F.cross_entropy(expected @ expected.T, torch.arange(6).flip(0)).backward()
    torch.testing.assert_close(torch.tensor(joined).double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(gradient).double(), weight.grad, rtol=0, atol=1e-6)


def test_alone_the_gather_is_the_identity():
    rows = torch.randn(2, 3)
    assert all_gather_with_grad(rows) is rows and alone(rows) is rows
    assert (rank(), world_size()) == (0, 1)
