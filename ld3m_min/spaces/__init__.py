"""What is learned: pixels, latents, or latents with their conditioning (sections 2.3 and 3.2).

Frequencies and neural fields, which other work learns, stand beside them.

To add a space, write a subclass of :class:`Space` in a file of its own and add it to `SPACES` in
`build`.
"""

from ld3m_min.spaces.autoencoder import AutoencoderBytesSpace, AutoencoderSpace
from ld3m_min.spaces.base import Space
from ld3m_min.spaces.build import SPACES, build_space, draw_initial_images
from ld3m_min.spaces.ddif import DDiFSpace
from ld3m_min.spaces.fred import FreDSpace
from ld3m_min.spaces.glad import FeatureSpace, WPlusSpace
from ld3m_min.spaces.ld3m import LD3MSpace
from ld3m_min.spaces.pixel import PixelSpace

__all__ = [
    "SPACES",
    "AutoencoderBytesSpace",
    "AutoencoderSpace",
    "DDiFSpace",
    "FeatureSpace",
    "FreDSpace",
    "LD3MSpace",
    "PixelSpace",
    "Space",
    "WPlusSpace",
    "build_space",
    "draw_initial_images",
]
