"""Metrics for Prometheus at /metrics."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from defectflow.service.answers import Result

RECENT = 500  # photographs in the figures for drift
QUANTILES = (0.1, 0.5, 0.9)
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)  # seconds


class Monitoring(Collector):
    """Counts of verdicts and refusals, times, and the scores of the last RECENT photographs, which show drift.

    Attributes:
        gauges: {name: (help, value, or values by output)}, read on each request of Prometheus.
    """

    def __init__(self) -> None:
        self.gauges: dict[str, tuple[str, float | Mapping[str, float]]] = {}
        self._registry = CollectorRegistry()
        self._verdicts = Count(
            "defectflow_verdicts", "Photographs by verdict", ["model", "verdict"], registry=self._registry
        )
        self._unjudged = Count(
            "defectflow_not_judged",
            "Photographs answered with review without being judged",
            ["cause"],
            registry=self._registry,
        )
        self._refused = Count("defectflow_requests_refused", "Refused requests", ["status"], registry=self._registry)
        self._request = Histogram(
            "defectflow_request_seconds", "From the headers of a request for verdicts to its response",
            buckets=BOUNDS, registry=self._registry,
        )  # fmt: skip
        self._judging = Histogram(
            "defectflow_judge_seconds", "Judging of one photograph", ["model"], buckets=BOUNDS, registry=self._registry
        )
        self._recent: dict[str, deque[tuple[float, str]]] = {}
        self._registry.register(self)

    def answered(self, results: Iterable[Result], milliseconds: float) -> None:
        """Count the verdicts of one request."""
        self._request.observe(milliseconds / 1000)
        for result in results:
            self._verdicts.labels(result.model, result.verdict).inc()
            if result.cause:
                self._unjudged.labels(result.cause).inc()
            elif result.score is not None and result.ms is not None:
                self._judging.labels(result.model).observe(result.ms / 1000)
                recent = self._recent.setdefault(result.model, deque(maxlen=RECENT))
                recent.append((result.score, result.verdict))

    def refused(self, status: int) -> None:
        """Count a refused request."""
        self._refused.labels(str(status)).inc()

    def collect(self) -> Iterator[Metric]:
        """The gauges, for the registry."""
        for name, (text, value) in self.gauges.items():
            if not isinstance(value, Mapping):
                yield GaugeMetricFamily(f"defectflow_{name}", text, value)
                continue
            family = GaugeMetricFamily(f"defectflow_{name}", text, labels=["output"])
            for output, number in value.items():
                family.add_metric([output], number)
            yield family
        scores = GaugeMetricFamily(
            "defectflow_recent_score", f"Scores of the last {RECENT} photographs, with the threshold at 0.5",
            labels=["model", "quantile"],
        )  # fmt: skip
        shares = GaugeMetricFamily(
            "defectflow_recent_share", f"Verdicts of the last {RECENT} photographs", labels=["model", "verdict"]
        )
        for model, recent in self._recent.items():
            values = np.quantile([score for score, _ in recent], QUANTILES)
            for quantile, value in zip(QUANTILES, values, strict=True):
                scores.add_metric([model, str(quantile)], float(value))
            words = Counter(word for _, word in recent)
            for word in ("good", "bad", "review"):
                shares.add_metric([model, word], words[word] / len(recent))
        yield scores
        yield shares

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
