"""What a run will cost before it starts, and the plan that fits (section 3.3)."""

from ld3m_min.io.memory import device_bytes
from ld3m_min.planner.fallback import choose
from ld3m_min.planner.forecast import Forecast, forecasts
from ld3m_min.planner.seconds import probe

__all__ = ["Forecast", "choose", "device_bytes", "forecasts", "probe"]
