from tests.support.unmeasured import unmeasured

__all__ = ["unmeasured"]
