"""What all tests share."""

from __future__ import annotations

import os
import signal

import hypothesis

# No test reaches a model hub, also not by mistake. Read when huggingface_hub is imported, so it is set here.
os.environ["HF_HUB_OFFLINE"] = "1"

# Tests press Ctrl-C; where a shell began them in the background, they and what they start would not notice it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests measure no time, and the machines that they run on are shared: there are no deadlines.
hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("dev", max_examples=100, deadline=None)
hypothesis.settings.register_profile(
    "thorough", max_examples=2_500, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
