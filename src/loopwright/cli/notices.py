"""What libraries write while they load, which is not for the reader of a command's output."""

from __future__ import annotations

__all__ = ["silence_notices"]


def silence_notices() -> None:
    """Let diffusers and transformers write no notices and bars; errors remain."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
