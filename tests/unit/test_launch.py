"""What a launcher says in the environment, the wait for the other processes, and the signals that stop a run."""

import logging
import os
import signal
import socket
import time

import pytest

from densevit.errors import ConfigError
from densevit.training import launch as module
from densevit.training.distributed import join_processes
from densevit.training.launch import Launch, is_first, meeting, read_launch
from densevit.training.signals import SIGNALS, stop_on_signals

WHOLE = {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*WHOLE, "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Launch()),
        (WHOLE, Launch(2, 1, 4, False, "here:29500")),
        ({**WHOLE, "TORCHELASTIC_RESTART_COUNT": "1"}, Launch(2, 1, 4, True, "here:29500")),
        ({"WORLD_SIZE": "1", "RANK": "3"}, Launch()),
        ({"RANK": "3", "LOCAL_RANK": "abc"}, Launch()),
        ({"WORLD_SIZE": ""}, Launch()),
    ],
)
def test_launch__is_read_from_the_environment(
    variables: dict[str, str], expected: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, variables)
    assert read_launch() == expected
    assert is_first() == (expected.rank == 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4 but RANK, MASTER_ADDR, MASTER_PORT are not set; start the run with"),
        ({**WHOLE, "MASTER_ADDR": ""}, "WORLD_SIZE is 4 but MASTER_ADDR is not set; .*or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "four"}, "WORLD_SIZE is 'four' in the environment but 1 to 999999 is accepted"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '9{40}'"),
        ({**WHOLE, "RANK": "4"}, "RANK is '4' in the environment but 0 to 3 is accepted"),
        ({**WHOLE, "RANK": "-1"}, "RANK is '-1'"),
        ({**WHOLE, "LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5'"),
        ({**WHOLE, "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({**WHOLE, "MASTER_PORT": "70000"}, "MASTER_PORT is '70000' in the environment but 0 to 65535"),
        ({"TORCHELASTIC_RESTART_COUNT": "x"}, "TORCHELASTIC_RESTART_COUNT is 'x'"),
    ],
)
def test_odd_launch__is_an_error(variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, variables)
    with pytest.raises(ConfigError, match=message):
        join_processes("cpu", shard=False, timeout_s=1).__enter__()
    with pytest.raises(ConfigError, match=message):
        is_first()


def test_process_without_the_others__says_that_it_waits_and_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    set_variables(monkeypatch, {**WHOLE, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    monkeypatch.setattr(module, "SILENT_S", 0.2)

    with pytest.raises(ConfigError, match=rf"process 0 of 4 did not find the others at 127.0.0.1:{port} within 1 s"):
        join_processes("cpu", shard=False, timeout_s=1).__enter__()

    assert f"process 0 of 4 waits for the others at 127.0.0.1:{port}, for up to 1 s" in caplog.text


def test_short_wait__says_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    with caplog.at_level(logging.INFO), meeting(Launch(), 1):
        pass
    time.sleep(0.2)
    assert caplog.text == ""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
@pytest.mark.parametrize("ignored", [True, False])
def test_hangup__stops_a_run_unless_it_is_ignored(ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert signal.SIGHUP in SIGNALS
        with stop_on_signals() as request:
            if ignored:
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert request.signal == (0 if ignored else signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
