"""One file per question. `python -m benchmarks [GROUP | GROUP/QUESTION ...]` answers them in one run and prints machine
and versions."""
