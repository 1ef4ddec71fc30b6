"""Harm done to a real service, and the proof that nothing was lost.

history   what the clients saw, append-only          nemesis   kills, pauses, bounces, cuts
ledger    what the model wrote down of every run     cluster   the processes it is done to
facts     what stands in the log                     load      the clients
checker   a pure judge of those three                storms/   what is done in which order; planted/ bugs it must find
"""
