"""The ten ImageNet subsets of section 4.1: table 5 of the paper, by class id, WordNet id and name.

A class id is ImageNet's position 0..999 in the alphabetical order of the WordNet ids (wnids). That
is also the order of the folders of an ImageNet tree, and of the class embedding of a prior trained
on ImageNet. A label is the position in the paper's list, 0..9. Only the classes that are needed are
listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ld3m_min.errors import InputError

CLASSES: dict[int, tuple[str, str]] = {
    0: ("n01440764", "tench"),
    9: ("n01518878", "ostrich"),
    11: ("n01531178", "goldfinch"),
    13: ("n01534433", "junco"),
    19: ("n01592084", "chickadee"),
    22: ("n01614925", "bald eagle"),
    24: ("n01622779", "great grey owl"),
    76: ("n01774750", "tarantula"),
    84: ("n01806143", "peacock"),
    88: ("n01818515", "macaw"),
    89: ("n01819313", "sulphur-crested cockatoo"),
    90: ("n01820546", "lorikeet"),
    92: ("n01828970", "bee eater"),
    93: ("n01829413", "hornbill"),
    94: ("n01833805", "hummingbird"),
    96: ("n01843383", "toucan"),
    100: ("n01860187", "black swan"),
    102: ("n01872401", "echidna"),
    129: ("n02006656", "spoonbill"),
    130: ("n02007558", "flamingo"),
    135: ("n02013706", "limpkin"),
    136: ("n02017213", "European gallinule"),
    139: ("n02025239", "ruddy turnstone"),
    144: ("n02051845", "pelican"),
    145: ("n02056570", "king penguin"),
    148: ("n02071294", "killer whale"),
    155: ("n02086240", "Shih-Tzu"),
    159: ("n02087394", "Rhodesian ridgeback"),
    162: ("n02088364", "beagle"),
    167: ("n02089973", "English foxhound"),
    182: ("n02093754", "Border terrier"),
    193: ("n02096294", "Australian terrier"),
    207: ("n02099601", "golden retriever"),
    217: ("n02102040", "English springer"),
    229: ("n02105641", "Old English sheepdog"),
    255: ("n02111129", "Leonberg"),
    258: ("n02111889", "Samoyed"),
    259: ("n02112018", "Pomeranian"),
    262: ("n02112706", "Brabancon griffon"),
    273: ("n02115641", "dingo"),
    275: ("n02116738", "African hunting dog"),
    281: ("n02123045", "tabby"),
    282: ("n02123159", "tiger cat"),
    283: ("n02123394", "Persian cat"),
    284: ("n02123597", "Siamese cat"),
    285: ("n02124075", "Egyptian cat"),
    287: ("n02127052", "lynx"),
    289: ("n02128757", "snow leopard"),
    290: ("n02128925", "jaguar"),
    291: ("n02129165", "lion"),
    292: ("n02129604", "tiger"),
    321: ("n02276258", "admiral"),
    322: ("n02277742", "ringlet"),
    324: ("n02280649", "cabbage butterfly"),
    326: ("n02281787", "lycaenid"),
    333: ("n02342885", "hamster"),
    339: ("n02389026", "sorrel"),
    364: ("n02457408", "three-toed sloth"),
    376: ("n02489166", "proboscis monkey"),
    392: ("n02606052", "rock beauty"),
    482: ("n02979186", "cassette player"),
    491: ("n03000684", "chain saw"),
    497: ("n03028079", "church"),
    500: ("n03042490", "cliff dwelling"),
    535: ("n03208938", "disk brake"),
    554: ("n03344393", "fireboat"),
    565: ("n03393912", "freight car"),
    566: ("n03394916", "French horn"),
    569: ("n03417042", "garbage truck"),
    571: ("n03425413", "gas pump"),
    574: ("n03445777", "golf ball"),
    576: ("n03447447", "gondola"),
    685: ("n03841143", "odometer"),
    688: ("n03857828", "oscilloscope"),
    701: ("n03888257", "parachute"),
    713: ("n03924679", "photocopier"),
    739: ("n03992509", "potter's wheel"),
    783: ("n04153751", "screw"),
    816: ("n04277352", "spindle"),
    874: ("n04487081", "trolleybus"),
    916: ("n06359193", "web site"),
    943: ("n07718472", "cucumber"),
    945: ("n07720875", "bell pepper"),
    948: ("n07742313", "Granny Smith"),
    949: ("n07745940", "strawberry"),
    950: ("n07747607", "orange"),
    951: ("n07749582", "lemon"),
    952: ("n07753113", "fig"),
    953: ("n07753275", "pineapple"),
    954: ("n07753592", "banana"),
    957: ("n07768694", "pomegranate"),
    984: ("n11879895", "rapeseed"),
    986: ("n12057211", "yellow lady's slipper"),
    995: ("n13044778", "earthstar"),
}
"""Class id -> (wnid, ImageNet's first name of the class), in the order of the ids."""

PRINTED: dict[int, tuple[str, str]] = {
    13: ("Snowbird", "ImageNet's second name of the junco"),
    24: ("Great Gray Owl", "ImageNet's second spelling"),
    89: ("Cockatoo", "shortened"),
    148: ("Orca", "ImageNet's third name of the killer whale"),
    229: ("English Sheepdog", "shortened"),
    275: ("Hyena", "not a hyena, which is class 276: a wild dog, also called hyena dog"),
    281: ("Tabby Cat", "ImageNet's second name of the tabby"),
    282: ("Bengal Cat", "ImageNet has no class of Bengal cats; these are its tiger cats"),
    376: ("Probiscis Monkey", "misprint"),
    688: ("Sscilloscope", "misprint"),
    874: ("Trollybus", "misprint"),
    948: ("Granny Smith Apple", "lengthened"),
}
"""Class id -> (the name in table 5, why it differs from ImageNet's).

Only where more than case, spaces and hyphens differ.
"""


@dataclass(frozen=True)
class Subset:
    """Ten classes of ImageNet.

    Attributes:
        title: the paper's name, e.g. "ImageNet-A".
        ids: the ten class ids in label order.
    """

    title: str
    ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """What `load_data` calls it: the title in small letters."""
        return self.title.lower()

    @property
    def wnids(self) -> tuple[str, ...]:
        """WordNet ids, the names of ImageNet's folders, in label order."""
        return tuple(CLASSES[i][0] for i in self.ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """ImageNet's first names, in label order."""
        return tuple(CLASSES[i][1] for i in self.ids)


SUBSETS: dict[str, Subset] = {
    s.name: s
    for s in (
        Subset("ImageNet-A", (255, 376, 984, 364, 500, 986, 333, 576, 148, 135)),
        Subset("ImageNet-B", (129, 916, 90, 275, 995, 874, 102, 259, 685, 139)),
        Subset("ImageNet-C", (565, 94, 554, 535, 92, 392, 291, 136, 324, 11)),
        Subset("ImageNet-D", (9, 258, 13, 262, 19, 339, 321, 24, 93, 322)),
        Subset("ImageNet-E", (816, 96, 100, 145, 739, 713, 783, 76, 688, 326)),
        Subset("ImageNette", (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)),
        Subset("ImageWoof", (193, 182, 258, 162, 155, 167, 159, 273, 207, 229)),
        Subset("ImageNet-Birds", (84, 130, 88, 144, 145, 22, 96, 9, 100, 89)),
        Subset("ImageNet-Fruits", (953, 954, 949, 950, 951, 957, 952, 945, 943, 948)),
        Subset("ImageNet-Cats", (281, 282, 283, 284, 285, 291, 292, 290, 289, 287)),
    )
}
"""The ten subsets by name, in the order of the paper's tables."""


def subset(name: object) -> Subset:
    """The subset of a name.

    Args:
        name: its name or title, whatever the case; `str` makes it text.

    Returns:
        The subset.

    Raises:
        InputError: there is none; lists the ten.
    """
    found = SUBSETS.get(str(name).lower())
    if found is None:
        raise InputError(f"unknown ImageNet subset {name!r}; choose {', '.join(SUBSETS)}")
    return found
