"""The goals of webhooks (docs/benchmarks.md): what it costs to send them, and what slow receivers cost others."""
