"""Results of blocks that later runs take over."""

from loopwright.run.caching.report import CachedBlock, CacheReport
from loopwright.run.caching.run_cache import RunCache
from loopwright.run.caching.store import BlockCache

__all__ = ["BlockCache", "CacheReport", "CachedBlock", "RunCache"]
