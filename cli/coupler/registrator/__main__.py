"""`registrator`: the command line."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupler.errors import CouplerError, ExitCode, UsageError
from coupler.registrator.settings import (
    BalancersSettings,
    EtcdSettings,
    KubernetesSettings,
    Settings,
    SourcesSettings,
    VulcandSettings,
    load,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONFIG = Path("/etc/coupler/registrator.yaml")
_ADDRESS_CONFIG = Path("/etc/coupler-lb/address.yaml")
_LISTEN = "127.0.0.1:9102"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `registrator` with these arguments; return its exit code."""
    _leave_libraries_to_the_system()
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.verb(arguments))
    except CouplerError as error:
        lines = [f"error: {error.what}", error.why, error.next_step]
        print("\n  ".join(line for line in lines if line), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _leave_libraries_to_the_system() -> None:
    """Let the programs that we run load the system's libraries: ours come first where PyInstaller made this one.

    Source: https://pyinstaller.org/en/stable/runtime-information.html, 'LD_LIBRARY_PATH / LIBPATH considerations'.
    """
    if getattr(sys, "frozen", False):
        os.environ.pop("LD_LIBRARY_PATH", None)
        if "LD_LIBRARY_PATH_ORIG" in os.environ:
            os.environ["LD_LIBRARY_PATH"] = os.environ.pop("LD_LIBRARY_PATH_ORIG")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="registrator", description="Keeps HAProxy, nginx and vulcand in step with Kubernetes and etcd."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="follow the sources and move the balancers, until stopped")
    run.add_argument("--config", type=Path, metavar="FILE", help=f"the configuration file (default: {_CONFIG})")
    run.add_argument("--pods", metavar="URL", help="without a file: read the annotated pods of this API server …")
    run.add_argument("--selector", default="", metavar="LABELS", help="… with these labels …")
    run.add_argument("--etcd", action="append", default=[], metavar="URL", help="… and register them in vulcand's etcd")
    run.add_argument("--etcd-api", type=int, choices=(2, 3), default=3, help="the version of etcd's API (default: 3)")
    run.add_argument("--listen", metavar="HOST:PORT", help=f"where state and metrics are served (default: {_LISTEN})")
    run.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    run.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="how long a dry run waits for sources")
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    run.set_defaults(verb=_run)
    hold = verbs.add_parser(
        "hold-address", help="stand for having an address that moves between machines, until stopped"
    )
    hold.add_argument("--config", type=Path, metavar="FILE", default=_ADDRESS_CONFIG, help="default: %(default)s")
    hold.add_argument("--release", action="store_true", help="only take away what a process that died has left")
    hold.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    hold.set_defaults(verb=_hold_address)
    explain = _asking(verbs, "explain", "say which route takes a request, and where it goes")
    explain.add_argument("host", metavar="HOST")
    explain.add_argument("path", metavar="PATH", nargs="?", default="/")
    explain.add_argument("-H", "--header", action="append", default=[], metavar="NAME: VALUE")
    explain.set_defaults(verb=_explain)
    state = _asking(verbs, "state", "print what a running registrator has, as JSON")
    state.set_defaults(verb=_state)
    for name, what in (("drain", "let an endpoint finish, with no new requests"), ("undrain", "let it serve again")):
        verb = _asking(verbs, name, what)
        verb.add_argument("name", metavar="ENDPOINT", help="an address, ADDRESS:PORT or a uid")
        verb.set_defaults(verb=_drain, method="PUT" if name == "drain" else "DELETE")
    return parser


def _asking(verbs: Any, name: str, what: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what)
    verb.add_argument("--at", metavar="WHERE", help="HOST:PORT or the control socket of the running registrator")
    return verb


def _run(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    try:
        from coupler.registrator import log
        from coupler.registrator.service import Service
    except ImportError as error:
        raise UsageError(
            "what the service needs is not installed", str(error), "pip install 'coupler[registrator]'"
        ) from error
    log.start(arguments.log_level)
    if not arguments.dry_run:
        asyncio.run(_served(Service, settings))
        return ExitCode.DONE
    plans = asyncio.run(_planned(Service, settings, arguments.wait))
    for balancer, lines in plans.items():
        print("\n".join([f"{balancer}:", *(f"  {line}" for line in lines or ["nothing to do"])]))
    return ExitCode.DIFFERS if any(plans.values()) else ExitCode.DONE


def _hold_address(arguments: argparse.Namespace) -> int:
    from coupler.registrator import log
    from coupler.registrator.address import service, settings

    log.start(arguments.log_level)
    wanted = settings.load(arguments.config)
    asyncio.run(service.release(wanted) if arguments.release else service.run(wanted))
    return ExitCode.DONE


async def _served(service: Any, settings: Settings) -> None:
    await service(settings).run()


async def _planned(service: Any, settings: Settings, seconds: float) -> dict[str, list[str]]:
    planned: dict[str, list[str]] = await service(settings, dry_run=True).plan(seconds)
    return planned


def _settings(arguments: argparse.Namespace) -> Settings:
    if arguments.pods or arguments.etcd:
        if arguments.config or not (arguments.pods and arguments.etcd):
            raise UsageError("--pods and --etcd belong together", next_step="give both, or a file with --config")
        kubernetes = KubernetesSettings(
            server=arguments.pods,
            pods=arguments.selector,
            services=False,
            ingress=False,
            gateway=False,
            write_status=False,
        )
        vulcand = VulcandSettings(EtcdSettings(tuple(arguments.etcd), arguments.etcd_api))
        settings = Settings(SourcesSettings(kubernetes), BalancersSettings(vulcand=vulcand), precedence=("kubernetes",))
    else:
        settings = load(arguments.config or _CONFIG)
    return dataclasses.replace(settings, listen=arguments.listen) if arguments.listen else settings


def _explain(arguments: argparse.Namespace) -> int:
    from coupler.registrator.asking import ask, explained

    headers = {}
    for header in arguments.header:
        name, colon, value = header.partition(":")
        if not colon:
            raise UsageError(f"{header!r} is no header", next_step="write it as 'Name: value'")
        headers[f"header-{name.strip()}"] = value.strip()
    answer = ask(arguments.at or _LISTEN, "GET", "/explain", {"host": arguments.host, "path": arguments.path} | headers)
    print(explained(answer))
    return ExitCode.DONE if answer["backend"] else ExitCode.FAILED


def _state(arguments: argparse.Namespace) -> int:
    from coupler.registrator.asking import ask

    print(json.dumps(ask(arguments.at or _LISTEN, "GET", "/state"), indent=2))
    return ExitCode.DONE


def _drain(arguments: argparse.Namespace) -> int:
    from urllib.parse import quote

    from coupler.registrator.asking import CONTROL, ask

    answer = ask(arguments.at or str(CONTROL), arguments.method, f"/drains/{quote(arguments.name, safe='')}")
    print("draining: " + (", ".join(answer["drains"]) or "nothing"))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
