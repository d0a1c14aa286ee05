"""What is learned: pixels, latents, or latents with their conditioning (sections 2.3 and 3.2).

To add a space, write a subclass of :class:`Space` in a file of its own and add it to `SPACES` in
`build`.
"""

from ld3m_min.spaces.autoencoder import AutoencoderSpace
from ld3m_min.spaces.base import Space
from ld3m_min.spaces.build import SPACES, build_space, draw_initial_images
from ld3m_min.spaces.glad import FeatureSpace, WPlusSpace
from ld3m_min.spaces.ld3m import LD3MSpace
from ld3m_min.spaces.pixel import PixelSpace

__all__ = [
    "SPACES",
    "AutoencoderSpace",
    "FeatureSpace",
    "LD3MSpace",
    "PixelSpace",
    "Space",
    "WPlusSpace",
    "build_space",
    "draw_initial_images",
]
