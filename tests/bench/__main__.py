"""Run the benchmarks and print one table: every line is a ratio, and says to what. Needs what the lab needs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench import commands, labs, pulls, registrator
from tests.bench.measure import table


def main() -> None:
    """Measure everything, in about fifteen minutes."""
    with tempfile.TemporaryDirectory(prefix="coupler-bench-") as name:
        folder = Path(name)
        pulled, load = pulls.measure(folder)
        routed, weight = registrator.measure(folder)
        rows = [*commands.measure(folder), *pulled, *routed, *labs.measure(folder)]
    sys.stdout.write("\n".join([table(rows), "", *load, "", *weight, ""]))


if __name__ == "__main__":
    main()
