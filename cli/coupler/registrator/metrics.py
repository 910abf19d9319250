"""What Prometheus reads: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric

    from coupler.registrator.intake import Intake
    from coupler.registrator.mover import Mover

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Every metric of one registrator. `propagation` is from a change at its origin, by its own clock, to applied."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._propagation = Histogram(
            "coupler_registrator_propagation_seconds",
            "From a change at its origin until the balancer has taken it.",
            ["balancer"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def watch(self, intake: Intake, movers: Sequence[Mover]) -> None:
        """Report these, as they are whenever somebody asks."""
        self._registry.register(_Now(intake, movers))

    def propagated(self, balancer: str, seconds: float) -> None:
        """Note how long a change took."""
        self._propagation.labels(balancer).observe(seconds)

    def text(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self._registry)


class _Now(Collector):
    def __init__(self, intake: Intake, movers: Sequence[Mover]) -> None:
        self._intake, self._movers = intake, movers

    def collect(self) -> Iterable[Metric]:
        yield from self._sources()
        yield from self._balancers()
        desired = self._intake.desired
        sizes = {"backends": desired.backends, "routes": desired.routes, "tcp_routes": desired.tcp_routes}
        for name, what in (sizes | {"hosts": desired.hosts, "problems": desired.problems}).items():
            words = name.replace("_", " ")
            yield GaugeMetricFamily(f"coupler_registrator_{name}", f"Number of {words} wanted.", len(what))

    def _sources(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("coupler_registrator_source_up", "1 while a source is up to date.", labels=["source"])
        held = GaugeMetricFamily(
            "coupler_registrator_source_held", "1 while a relist waits for confirmation.", labels=["source"]
        )
        endpoints = GaugeMetricFamily("coupler_registrator_endpoints", "Endpoints of a source.", labels=["source"])
        for state in self._intake.states():
            up.add_metric([state.name], float(state.synced and state.problem is None))
            held.add_metric([state.name], float(state.held is not None))
            endpoints.add_metric([state.name], state.endpoints)
        return up, held, endpoints

    def _balancers(self) -> Iterable[Metric]:
        gauges = {
            "in_step": "1 while a balancer has what is wanted.",
            "failed": "Backends that a balancer does not take.",
            "pending": "Backends that wait, for connections to end or for a reload.",
        }
        counters = {
            "moves": "Times that a balancer was moved.",
            "changes": "Changes made to a balancer.",
            "errors": "Times that a balancer could not be moved at all.",
            "drifted": "Backends that were changed behind our back.",
            "busy_seconds": "Time spent on moving a balancer.",
        }
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            **{
                n: GaugeMetricFamily(f"coupler_registrator_balancer_{n}", t, labels=["balancer"])
                for n, t in gauges.items()
            },
            **{
                n: CounterMetricFamily(f"coupler_registrator_balancer_{n}", t, labels=["balancer"])
                for n, t in counters.items()
            },
        }
        for mover in self._movers:
            record = mover.record
            values = {
                "in_step": float(mover.in_step),
                "failed": len(record.failed),
                "pending": len(record.pending),
                "moves": record.moves,
                "changes": record.changes,
                "errors": record.errors,
                "drifted": record.drifted,
                "busy_seconds": record.busy,
            }
            for name, value in values.items():
                families[name].add_metric([mover.balancer.name], value)
        return families.values()
