"""A server for one pipeline: jobs that survive a crash, their events, and OpenAI's images API.

Needs the extra `server`: `pip install 'loopwright[server]'`. `loopwright serve` begins one.
"""

from loopwright.server.limits import Limits
from loopwright.server.service import Keeping
from loopwright.server.serving import Server, ServerSettings

__all__ = ["Keeping", "Limits", "Server", "ServerSettings"]
