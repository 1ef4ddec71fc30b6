"""`python chaos/hasty.py ARGUMENTS...` is `forebay ARGUMENTS...` for which a day of waiting to try a webhook again is a
second: three days of tries are over within a storm. Receivers that failed rest for a moment, too. Nothing else is
changed; that the real delays are what they must be is shown with a clock in hand
(tests/unit/webhooks/test_dispatcher.py)."""

from __future__ import annotations

import sys
from pathlib import Path

DAYS_A_SECOND = 1.0 / 86_400.0


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # in place of this folder, which Python puts there
    from forebay.webhooks import receivers, schedule

    schedule.DELAYS_S = tuple(delay_s * DAYS_A_SECOND for delay_s in schedule.DELAYS_S)  # type: ignore[assignment]  # of the same length
    receivers.REST_S, receivers.REST_MOST_S = 0.1, 0.5
    sys.argv = ["forebay", *sys.argv[1:]]
    from forebay.cli import main as forebay

    forebay()


if __name__ == "__main__":
    main()
