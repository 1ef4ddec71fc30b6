"""One file per question. `python -m benchmarks [QUESTION ...]` answers them in one run and prints machine and
versions."""
