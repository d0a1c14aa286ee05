"""Real images with labels, in three splits (section 4.1 and table 5)."""

from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.digits import load_digits
from ld3m_min.data.letters import load_letters
from ld3m_min.data.loading import load_data
from ld3m_min.data.splits import DataSplits

__all__ = ["DataSplits", "ImageDataset", "load_data", "load_digits", "load_letters"]
