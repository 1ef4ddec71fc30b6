"""Every metric of Forebay, in one place: name, meaning, unit, labels, buckets.

One `Metrics` per process, made by `assembly` and handed to the roles. Labels are bounded: models, lanes, outcomes,
routes and error codes, never ids, tenants or texts. Names follow Prometheus: base units, `_total` for counters.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BYTES = (1024, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


class Metrics:
    """The first set. Each attribute is a prometheus_client metric registered in `registry`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram

        self.http_requests = counter(
            "forebay_http_requests_total", "HTTP requests answered.", "method", "route", "status"
        )
        self.http_seconds = histogram(
            "forebay_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer, waits asked for by the caller included.",
            SECONDS,
            "method",
            "route",
        )
        self.jobs_submitted = counter("forebay_jobs_submitted_total", "Jobs answered with 202 or 200.", "model", "lane")
        self.jobs_rejected = counter("forebay_jobs_rejected_total", "Submissions refused, by error code.", "code")
        self.input_bytes = histogram("forebay_input_size_bytes", "Size of accepted inputs.", BYTES, "model")
        self.jobs_finished = counter(
            "forebay_jobs_finished_total",
            "Jobs whose final state became visible: succeeded, failed, canceled or expired.",
            "model",
            "status",
        )
        self.jobs_failed = counter(
            "forebay_jobs_failed_total",
            "Jobs that ended failed, by error code: each is a dead letter until it is done again.",
            "model",
            "code",
        )
        self.jobs_retried = counter(
            "forebay_jobs_retried_total",
            "Jobs that do another again: retries and redriven dead letters.",
            "model",
        )
        self.jobs_due = counter(
            "forebay_jobs_due_total",
            "Jobs whose time was over, by what the scheduler said of them: expired, failed (lived too long), deleted "
            "(retained no longer). Said twice counts twice.",
            "model",
            "event",
        )
        self.queue_depth = gauge(
            "forebay_queue_depth", "Jobs accepted and not finished with by a worker.", "model", "lane"
        )
        self.oldest_age = gauge(
            "forebay_queue_oldest_age_seconds", "For how long the oldest job that waits has done so.", "model", "lane"
        )
        self.time_to_start = histogram(
            "forebay_job_time_to_start_seconds", "From acceptance to the start of an attempt.", SECONDS, "model"
        )
        self.batch_size = histogram("forebay_batch_size", "Jobs in a batch handed to a runner.", BATCH_SIZES, "model")
        self.decode_seconds = histogram(
            "forebay_batch_decode_seconds", "Decoding and preprocessing of one batch.", SECONDS, "model"
        )
        self.predict_seconds = histogram(
            "forebay_batch_predict_seconds", "Inference and postprocessing of one batch.", SECONDS, "model"
        )
        self.interim_events = counter(
            "forebay_interim_events_total",
            "Events published of what handlers say while they run: progress, output.",
            "model",
            "kind",
        )
        self.attempts_failed = counter(
            "forebay_attempts_failed_total",
            "Attempts that ended without an outcome for the job, by cause: runner_died, run_timeout, model_error, ...",
            "model",
            "code",
        )
        self.attempts_retried = counter(
            "forebay_attempts_retried_total",
            "Attempts that failed and are tried again after a delay, by error code.",
            "model",
            "code",
        )
        self.runner_starts = counter("forebay_runner_starts_total", "Runner processes started.", "model")
        self.runners_ready = gauge("forebay_runners_ready", "Runner processes with the model loaded.", "model")
        self.model_load_seconds = histogram(
            "forebay_model_load_seconds", "From starting a runner to the model being ready.", SECONDS, "model"
        )
        self.projected_facts = counter("forebay_projector_facts_total", "Requests and events applied to the store.")
        self.projected_ignored = counter(
            "forebay_projector_ignored_total", "Facts that changed nothing, such as a second final event of a job."
        )
        self.projector_malformed = counter("forebay_projector_malformed_total", "Log records that nobody can read.")
        self.projector_lag = gauge(
            "forebay_projector_lag_seconds", "Age of the newest fact applied while the log holds more; 0 at its end."
        )

        self.webhook_tries = counter(
            "forebay_webhook_tries_total",
            "Webhook requests, by what they came to (delivered, pending: tried again later, parked) and by what went "
            "wrong, ok if nothing did.",
            "outcome",
            "code",
        )
        self.webhook_seconds = histogram(
            "forebay_webhook_duration_seconds", "From signing a webhook to the end of its receiver's answer.", SECONDS
        )
        self.webhooks_parked = counter(
            "forebay_webhooks_parked_total",
            "Webhook deliveries that nobody tries any more until somebody asks, by reason: that of the last of ten "
            "tries, gone, endpoint_removed, endpoint_disabled, no_turn (it waited for four days).",
            "reason",
        )
        self.webhooks_pending = gauge("forebay_webhooks_pending", "Webhook deliveries to be sent, 10000 at most.")
        self.webhooks_due_age = gauge(
            "forebay_webhooks_due_age_seconds", "For how long the webhook delivery that is longest due has been so."
        )
        self.webhook_endpoints_disabled = counter(
            "forebay_webhook_endpoints_disabled_total",
            "Webhook endpoints disabled because they answered 410 (gone) or nothing well for days (failing).",
            "cause",
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)
