"""What this machine can do, and what is to be mended before anything long is begun."""

from ld3m_min.doctor.check import Check
from ld3m_min.doctor.report import Report, examined

__all__ = ["Check", "Report", "examined"]
