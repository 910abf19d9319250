"""What a master says of a reload, which process answers, and that long work leaves room for others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.adapter import HAProxy
from coupler.registrator.balancers.haproxy.config import Settings
from coupler.registrator.balancers.haproxy.files import Files
from coupler.registrator.balancers.haproxy.pace import joined
from coupler.registrator.balancers.haproxy.reload import MasterReload, reload_failure
from coupler.registrator.balancers.haproxy.socket import Process, RuntimeSocket
from coupler.registrator.model import Desired

INFO = "Name: HAProxy\nVersion: {}\nPid: 7\nUptime: 0d\nStart_time_sec: 99\nStopping: {}\nnode: Pid: 8\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", None),
        ("Success=1\n--\n[NOTICE] new worker\n", None),
        ("Success=0\n--\n[ALERT] unknown keyword\n", "[ALERT] unknown keyword"),
        ("Success=0\n", "it does not say why"),
    ],
)
def test_a_master_of_2_7_says_whether_it_worked(answer: str, why: str | None) -> None:
    assert reload_failure(answer) == why


async def served_by(path: Path, answer: str) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            said = answer if b"info" in line or b"reload" in line else ""
            writer.write(said.encode() + (b"" if b"reload" in line else b"\n> "))
            if b"reload" in line:
                break
        writer.close()

    return await asyncio.start_unix_server(serve, path)


def test_a_reload_that_the_master_reports_as_failed_is_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with await served_by(tmp_path / "master", "Success=0\n--\nbad line\n"):
            with pytest.raises(BalancerError) as caught:
                await MasterReload(tmp_path / "master")(1)
        assert caught.value.why == "bad line"

    asyncio.run(run())


def test_a_master_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BalancerError):
        asyncio.run(MasterReload(tmp_path / "nobody")(1))


def test_a_process_is_read_from_its_lines() -> None:
    process = Process.parse(INFO.format("2.6.12-1+deb12u4", 0))
    assert process == Process(7, "99", "2.6.12-1+deb12u4", stopping=False)
    assert process.release == (2, 6)
    assert Process.parse(INFO.format("2.8-dev3", 1)) == Process(7, "99", "2.8-dev3", stopping=True)
    assert Process.parse("").release == (0, 0)


@pytest.mark.parametrize("version", ["2.4.22", "1.8.30-x", "2.5.14"])
def test_what_cannot_add_servers_is_refused(tmp_path: Path, version: str) -> None:
    socket = RuntimeSocket(tmp_path / "socket")
    config = tmp_path / "coupler.cfg"
    reload = MasterReload(tmp_path / "master")
    adapter = HAProxy(Settings(config), socket, Files(config, (), "haproxy"), reload)

    async def run() -> None:
        async with await served_by(socket.path, INFO.format(version, 0)):
            with pytest.raises(BalancerError, match="too old") as caught:
                await adapter.apply(Desired(), None, remove=True)
            assert "2.6" in str(caught.value.next_step)
            await adapter.close()

    asyncio.run(run())


def test_the_port_of_a_redirect_is_that_of_tls() -> None:
    config = Path("/coupler.cfg")
    assert Settings(config, ("*:80",)).redirect_port is None
    assert Settings(config, ("*:80",), https_port=443).redirect_port is None
    assert Settings(config, tls_binds=("[::]:8443", "*:1")).redirect_port == 8443
    assert Settings(config, tls_binds=("*:8443",), https_port=443).redirect_port == 443


def test_others_run_while_a_long_text_is_put_together() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> str:
        counting = asyncio.create_task(count())
        text = await joined(str(sum(range(20_000))) for _ in range(100))
        counting.cancel()
        return text

    assert asyncio.run(run()) == str(sum(range(20_000))) * 100
    assert turns > 3
