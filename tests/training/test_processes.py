"""Joining processes: who is who, where they meet, and one message of one failure."""

import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import nn

from sightline.core.errors import ConfigError, SightlineError
from sightline.training import parallel, processes
from sightline.training.distributed import exchange, first, largest, message_of, total
from sightline.training.launch import launch
from sightline.training.options import LoopOptions
from sightline.training.processes import Place, is_loopback, listening, loopback_socket

ROOT = Path(__file__).parents[2]
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}

PROGRAM = """
import logging
from sightline.training.distributed import rank, world_size
from sightline.training.processes import processes

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
with processes("cpu"):
    print(f"process {rank()} of {world_size()}", flush=True)
"""


def test_the_environment_says_who_is_who():
    assert Place.from_environment({}) is None
    assert Place.from_environment(TORCHRUN) == Place(1, 2, "127.0.0.1", 29500, True)
    far = Place.from_environment(TORCHRUN | {"MASTER_ADDR": "10.0.0.7", "LOCAL_WORLD_SIZE": "1"})
    assert far is not None and not far.on_one_machine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": ""}, "lacks MASTER_PORT: start with torchrun, or unset RANK"),
        ({"RANK": "one"}, "RANK='one', .*: these must be numbers"),
        ({"RANK": "2"}, "RANK 2 is not below WORLD_SIZE 2"),
    ],
)
def test_an_incomplete_environment_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Place.from_environment(TORCHRUN | change)


def test_loopback_is_told_from_the_rest():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "machine.example")))


def test_listening_sockets_are_found():
    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs Linux")
    with loopback_socket() as server:
        assert listening(server.getsockname()[1]) == ["127.0.0.1"]
    assert listening(1) == []


def test_an_open_meeting_point_is_warned_of(caplog, monkeypatch):
    place = Place(0, 2, "localhost", 4711, True)
    monkeypatch.setattr(processes, "listening", lambda port: ["::"])
    processes._tell_address(place)
    warned = caplog.records[-1]
    assert warned.levelname == "WARNING" and "meet at :: port 4711" in warned.message
    assert "--processes N" in warned.message
    caplog.clear()
    monkeypatch.setattr(processes, "listening", lambda port: ["127.0.0.1"])
    processes._tell_address(place)
    assert [record.levelname for record in caplog.records] in ([], ["INFO"])


def test_started_by_us_everything_stays_on_the_loopback_address(capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launch([sys.executable, "-c", PROGRAM], 2) == 0
    said = "".join(capfd.readouterr())
    assert sorted(line for line in said.splitlines() if line.startswith("process ")) == [
        "process 0 of 2", "process 1 of 2",
    ]  # fmt: skip
    assert "INFO 2 processes meet at 127.0.0.1 port" in said and "WARNING" not in said


def test_the_code_is_that_of_the_first_to_fail_and_the_others_are_ended(monkeypatch):
    program = (
        "import os, sys, time; time.sleep(0 if os.environ['RANK'] == '1' else 60); sys.exit(4)"
    )
    begun = time.monotonic()
    assert launch([sys.executable, "-c", program], 3) == 4
    assert time.monotonic() - begun < 30
    assert launch([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 1) == 128 + 9


def test_alone_every_answer_is_ones_own():
    assert (total([1, 2.5]), largest(3), exchange({"a": 1})) == ([1.0, 2.5], 3, [{"a": 1}])
    assert first(lambda: 7) == 7
    with pytest.raises(KeyError):
        first(lambda: {}["x"])
    with processes.processes("cpu"):
        assert not dist.is_initialized()


def test_messages_name_the_kind_unless_written_for_a_person():
    assert message_of(SightlineError("do this")) == "do this"
    assert message_of(KeyError("x")) == "KeyError: 'x'"


def test_settings_that_do_not_fit_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="unknown parallel 'dp': did you mean 'ddp'"):
        LoopOptions(parallel="dp")
    with pytest.raises(ConfigError, match="this one is alone: start with torchrun or --processes"):
        parallel.wrap(nn.Linear(2, 2), "fsdp")
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="would train 2 networks in one folder: use ddp or fsdp"):
        parallel.wrap(nn.Linear(2, 2), "none")
    norm = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match=r"1 is a batch norm that learns: .*freeze=1\.\*"):
        parallel.refuse_batch_norm(norm)
    parallel.refuse_batch_norm(norm.eval())


def test_launching_inside_a_group_or_nothing_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="0 processes: start at least one"):
        launch(["true"], 0)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="use torchrun or --processes, not both"):
        launch(["true"], 2)


def test_one_gpu_by_number_is_refused_and_too_few_too(monkeypatch):
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match="is one GPU and several processes train together"):
        processes._choose_gpu("cuda:0")
    with pytest.raises(ConfigError, match="process 1 of this machine has no GPU of its own"):
        processes._choose_gpu("auto")
    assert not processes._choose_gpu("cpu")
