"""Tests of `ld3m_min.commands`."""
