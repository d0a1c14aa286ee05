"""Expert trajectories: what trajectory matching follows (section 2.1)."""

from ld3m_min.experts.buffer import ExpertBuffer, experts_name
from ld3m_min.experts.train import experts_below, train_experts

__all__ = ["ExpertBuffer", "experts_below", "experts_name", "train_experts"]
