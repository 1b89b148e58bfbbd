"""Processes that the launcher has started again do not read what dead ones have left in its store."""

import importlib
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from electra_accel.engines.restarts import HOSTS, RESTARTS, leave_the_dead


@pytest.mark.parametrize(("number", "hosts", "seen"), [("0", "1", True), ("1", "1", False), ("1", "2", True)])
def test_addresses_of_the_dead_are_not_read(monkeypatch, number, hosts, seen):
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(rendezvous, "_create_c10d_store", rendezvous._create_c10d_store)  # restored afterwards
    for name, value in {RESTARTS: number, HOSTS: hosts, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    launcher = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launcher.set("address of 0", "of a process that was killed")
    leave_the_dead()
    store = rendezvous._create_c10d_store("127.0.0.1", launcher.port, 1, 2, timedelta(seconds=20))
    assert store.check(["address of 0"]) == seen
