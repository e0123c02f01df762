"""The ten benchmark sets of the papers: what is in them, how they are laid out, where they are had.

Every fact is from the set's paper or from the source that the entry's `sources` names; what could
not be verified is None or "not stated", never a guess. Class names are spelled in one way for all
sets, lower case with spaces; `find_class` knows the folder names that archives really use.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from rsir.errors import UsageError


@dataclass(frozen=True)
class Citation:
    """A paper. doi is None where it could not be verified."""

    authors: str
    title: str
    venue: str
    year: int
    doi: str | None


@dataclass(frozen=True)
class Archive:
    """One file to download and unpack. size in bytes and sha256 in hex are None where unknown."""

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One benchmark set.

    classes: (L,) canonical names of the classes or labels; empty if the list is not verified.
    images: how many the set has in all. counts: images of each class folder; empty if not known.
    size: (height, width) of the images in pixels, as published.
    gsd: ground sampling distance, (finest, coarsest) in metres, or None if not stated.
    labels: "single" or "multi". folders: the class folders that the images lie in, where those are
        not the labels; empty if the images lie in one folder.
    torchgeo: the dataset class in `torchgeo.datasets` that downloads it, or None.
    archive: where it is downloaded from otherwise, or None if it must be had by hand.
    layouts: folders, relative to a data root, that hold the class folders (or, without class
        folders, the images) when the set is unpacked in the ways met so far.
    aliases: other names that archives use for a class.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    class_count: int
    images: int
    size: tuple[int, int]
    labels: Literal["single", "multi"]
    citation: Citation
    home: str
    licence: str
    sources: str
    layouts: tuple[str, ...]
    gsd: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] | None = None
    torchgeo: str | None = None
    archive: Archive | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        inner = {
            key: None if values[key] is None else dataclasses.asdict(values[key])
            for key in ("citation", "archive")
        }
        return values | inner | {"counts": dict(self.counts), "aliases": dict(self.aliases)}

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The canonical names of the folders that the images lie in; empty if none or unknown."""
        return self.classes if self.folders is None else self.folders


def get(name: str) -> Entry:
    """The entry of that name; case, spaces and punctuation do not matter.

    Raises UsageError listing the names.
    """
    for entry in ENTRIES.values():
        if _key(name) in {_key(entry.name), _key(entry.title)}:
            return entry
    raise UsageError(f"no benchmark set {name!r}; there are {', '.join(ENTRIES)}")


def find_class(entry: Entry, name: str) -> str | None:
    """The canonical name of a class, label or class folder, however it is spelled; else None.

    "DenseResidential", "dense_residential" and "Dense Residential" are "dense residential".
    """
    return _spellings(entry).get(_key(name))


def find_folder(entry: Entry, name: str) -> str | None:
    """As `find_class`, for class folders only; None for a label that no folder is named for."""
    known = find_class(entry, name)
    return known if known in entry.class_folders else None


def _key(name: str) -> str:
    """Letters and digits only, case folded, without a plural s: what all spellings share."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    key = "".join(character for character in plain if character.isalnum())
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def _spellings(entry: Entry) -> dict[str, str]:
    names = {*entry.classes, *entry.class_folders}
    spelled = {_key(name): name for name in names}
    for name, others in entry.aliases.items():
        spelled |= {_key(other): name for other in others}
    return spelled


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _even(classes: tuple[str, ...], each: int) -> Mapping[str, int]:
    return MappingProxyType(dict.fromkeys(classes, each))


_UCM = _names(
    "agricultural, airplane, baseball diamond, beach, buildings, chaparral, dense residential, "
    "forest, freeway, golf course, harbor, intersection, medium residential, mobile home park, "
    "overpass, parking lot, river, runway, sparse residential, storage tanks, tennis court"
)
_NWPU = _names(
    "airplane, airport, baseball diamond, basketball court, beach, bridge, chaparral, church, "
    "circular farmland, cloud, commercial area, dense residential, desert, forest, freeway, "
    "golf course, ground track field, harbor, industrial area, intersection, island, lake, meadow, "
    "medium residential, mobile home park, mountain, overpass, palace, parking lot, railway, "
    "railway station, rectangular farmland, river, roundabout, runway, sea ice, ship, snowberg, "
    "sparse residential, stadium, storage tank, tennis court, terrace, thermal power station, "
    "wetland"
)
_SIRI = _names(
    "agriculture, commercial, harbor, idle land, industrial, meadow, overpass, park, pond, "
    "residential, river, water"
)
_PATTERNNET = _names(
    "airplane, baseball field, basketball court, beach, bridge, cemetery, chaparral, "
    "christmas tree farm, closed road, coastal mansion, crosswalk, dense residential, "
    "ferry terminal, football field, forest, freeway, golf course, harbor, intersection, "
    "mobile home park, nursing home, oil gas field, oil well, overpass, parking lot, "
    "parking space, railway, river, runway, runway marking, shipping yard, solar panel, "
    "sparse residential, storage tank, swimming pool, tennis court, transformer station, "
    "wastewater treatment plant"
)
_RSSCN7 = _names("grass, field, industry, river lake, forest, resident, parking")
_AID_COUNTS = MappingProxyType(
    {
        "airport": 360, "bare land": 310, "baseball field": 220, "beach": 400, "bridge": 360,
        "center": 260, "church": 240, "commercial": 350, "dense residential": 410, "desert": 300,
        "farmland": 370, "forest": 250, "industrial": 390, "meadow": 280,
        "medium residential": 290, "mountain": 340, "park": 350, "parking": 390,
        "playground": 370, "pond": 420, "port": 380, "railway station": 260, "resort": 290,
        "river": 410, "school": 300, "sparse residential": 300, "square": 330, "stadium": 290,
        "storage tanks": 360, "viaduct": 420,
    }
)  # fmt: skip
_RS19_COUNTS = MappingProxyType(
    {
        "airport": 55, "beach": 50, "bridge": 52, "commercial": 56, "desert": 50, "farmland": 50,
        "football field": 50, "forest": 53, "industrial": 53, "meadow": 61, "mountain": 50,
        "park": 50, "parking": 50, "pond": 54, "port": 53, "railway station": 50,
        "residential": 54, "river": 56, "viaduct": 58,
    }
)  # fmt: skip

_ALL = (
    Entry(
        name="ucm",
        title="UC Merced Land Use",
        classes=_UCM,
        class_count=21,
        images=2100,
        counts=_even(_UCM, 100),
        size=(256, 256),
        gsd=(0.3, 0.3),
        labels="single",
        citation=Citation(
            authors="Y. Yang, S. Newsam",
            title="Bag-of-visual-words and spatial extensions for land-use classification",
            venue="ACM SIGSPATIAL GIS, pp. 270–279",
            year=2010,
            doi="10.1145/1869790.1869829",
        ),
        home="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
        licence="public domain imagery (USGS National Map)",
        sources="the set's page; torchgeo.datasets.UCMerced; the copy at hand",
        layouts=("UCMerced_LandUse/Images", "UCMerced_LandUse", "UCM/Images", "UCM"),
        torchgeo="UCMerced",
        notes="1 foot per pixel. 44 images are some pixels off 256×256. airplane01 and airplane02 "
        "are the same byte for byte. Its multi-label table has the 17 labels of DLRSD.",
    ),
    Entry(
        name="satrem",
        title="Satellite Remote Sensing Image Database",
        classes=(),
        class_count=20,
        images=3000,
        size=(256, 256),
        labels="single",
        citation=Citation(
            authors="not verified",
            title="used in: dual attention and GeM for remote sensing image retrieval (Chinese)",
            venue="Computer Science and Application 11(3), pp. 515–524, table 1",
            year=2021,
            doi=None,
        ),
        home="its authors; no public address is known",
        licence="not stated",
        sources="numbers from table 1 of the citing paper; the list of classes is not verified",
        layouts=("SATREM",),
    ),
    Entry(
        name="nwpu-resisc45",
        title="NWPU-RESISC45",
        classes=_NWPU,
        class_count=45,
        images=31500,
        counts=_even(_NWPU, 700),
        size=(256, 256),
        gsd=(0.2, 30.0),
        labels="single",
        citation=Citation(
            authors="G. Cheng, J. Han, X. Lu",
            title="Remote sensing image scene classification: benchmark and state of the art",
            venue="Proceedings of the IEEE 105(10), pp. 1865–1883",
            year=2017,
            doi="10.1109/JPROC.2017.2675998",
        ),
        home="https://gcheng-nwpu.github.io/#Datasets",
        licence="not stated; research use",
        sources="paper; torchgeo.datasets.RESISC45",
        layouts=("NWPU-RESISC45", "NWPU-RESISC45/NWPU-RESISC45", "RESISC45"),
        torchgeo="RESISC45",
    ),
    Entry(
        name="siri-whu",
        title="Google image dataset of SIRI-WHU",
        classes=_SIRI,
        class_count=12,
        images=2400,
        counts=_even(_SIRI, 200),
        size=(200, 200),
        gsd=(2.0, 2.0),
        labels="single",
        citation=Citation(
            authors="Q. Zhu, Y. Zhong, B. Zhao, G.-S. Xia, L. Zhang",
            title="Bag-of-visual-words scene classifier with local and global features for high "
            "spatial resolution remote sensing imagery",
            venue="IEEE Geoscience and Remote Sensing Letters 13(6), pp. 747–751",
            year=2016,
            doi="10.1109/LGRS.2015.2513443",
        ),
        home="http://www.lmars.whu.edu.cn/prof_web/zhongyanfei/e-code.html",
        licence="not stated; research use",
        sources="the set's page, as quoted in public lists of remote sensing data sets",
        layouts=(
            "Google dataset of SIRI-WHU_earth_im_tiff/12class_tif",
            "SIRI-WHU/12class_tif",
            "12class_tif",
            "SIRI-WHU",
        ),
        notes="pond/0002.tif is 190×200 pixels in the published archive.",
    ),
    Entry(
        name="aid",
        title="Aerial Image Dataset",
        classes=tuple(_AID_COUNTS),
        class_count=30,
        images=10000,
        counts=_AID_COUNTS,
        size=(600, 600),
        gsd=(0.5, 8.0),
        labels="single",
        citation=Citation(
            authors="G.-S. Xia, J. Hu, F. Hu, B. Shi, X. Bai, Y. Zhong, L. Zhang, X. Lu",
            title="AID: a benchmark data set for performance evaluation of aerial scene "
            "classification",
            venue="IEEE Transactions on Geoscience and Remote Sensing 55(7), pp. 3965–3981",
            year=2017,
            doi="10.1109/TGRS.2017.2685945",
        ),
        home="https://captain-whu.github.io/AID/",
        licence="not stated; research use",
        sources="paper (220 to 420 images a class, 10,000 in all); counts from the copy at hand",
        layouts=("AID", "AID/AID", "AID_dataset/AID", "AID/images"),
        notes="industrial_203 and industrial_205 are the same byte for byte.",
    ),
    Entry(
        name="patternnet",
        title="PatternNet",
        classes=_PATTERNNET,
        class_count=38,
        images=30400,
        counts=_even(_PATTERNNET, 800),
        size=(256, 256),
        gsd=(0.062, 4.693),
        labels="single",
        citation=Citation(
            authors="W. Zhou, S. Newsam, C. Li, Z. Shao",
            title="PatternNet: a benchmark dataset for performance evaluation of remote sensing "
            "image retrieval",
            venue="ISPRS Journal of Photogrammetry and Remote Sensing 145, pp. 197–209",
            year=2018,
            doi="10.1016/j.isprsjprs.2018.01.004",
        ),
        home="https://sites.google.com/view/zhouwx/dataset",
        licence="not stated; research use",
        sources="paper; torchgeo.datasets.PatternNet",
        layouts=("PatternNet/images", "PatternNet"),
        torchgeo="PatternNet",
    ),
    Entry(
        name="whu-rs19",
        title="WHU-RS19",
        classes=tuple(_RS19_COUNTS),
        class_count=19,
        images=1005,
        counts=_RS19_COUNTS,
        size=(600, 600),
        labels="single",
        citation=Citation(
            authors="D. Dai, W. Yang",
            title="Satellite image classification via two-layer sparse coding with biased image "
            "representation",
            venue="IEEE Geoscience and Remote Sensing Letters 8(1), pp. 173–176",
            year=2011,
            doi="10.1109/LGRS.2010.2055033",
        ),
        home="https://github.com/CAPTAIN-WHU/BED4RS",
        licence="not stated; research use",
        sources="counts from a public listing of all 1,005 files (albertofrizzera/VT-RSBS)",
        layouts=("WHU-RS19", "WHU-RS19/WHU-RS19", "RS19", "WHU_RS19/images"),
        notes="Up to 0.5 m per pixel. Not every image is 600×600.",
    ),
    Entry(
        name="rsscn7",
        title="RSSCN7",
        classes=_RSSCN7,
        class_count=7,
        images=2800,
        counts=_even(_RSSCN7, 400),
        size=(400, 400),
        labels="single",
        citation=Citation(
            authors="Q. Zou, L. Ni, T. Zhang, Q. Wang",
            title="Deep learning based feature selection for remote sensing scene classification",
            venue="IEEE Geoscience and Remote Sensing Letters 12(11), pp. 2321–2325",
            year=2015,
            doi="10.1109/LGRS.2015.2475299",
        ),
        home="https://github.com/palewithout/RSSCN7",
        licence="not stated; research use",
        sources="the set's page and its repository; 400 images a class at 4 scales",
        layouts=("RSSCN7", "RSSCN7-master", "rsscn7"),
        archive=Archive(
            url="https://github.com/palewithout/RSSCN7/archive/"
            "0dedd8435c51dc7a391cca3069e6b141213f8568.zip",
            filename="RSSCN7.zip",
        ),
        aliases={
            "grass": ("aGrass", "grassland"),
            "field": ("bField", "farmland"),
            "industry": ("cIndustry", "industrial", "industrial region"),
            "river lake": ("dRiverLake", "river or lake", "river&lake"),
            "forest": ("eForest",),
            "resident": ("fResident", "residential", "residential region"),
            "parking": ("gParking", "parking lot"),
        },
    ),
    Entry(
        name="dlrsd",
        title="DLRSD",
        classes=_names(
            "airplane, bare soil, buildings, cars, chaparral, court, dock, field, grass, "
            "mobile home, pavement, sand, sea, ship, tanks, trees, water"
        ),
        class_count=17,
        images=2100,
        counts=_even(_UCM, 100),
        folders=_UCM,
        size=(256, 256),
        gsd=(0.3, 0.3),
        labels="multi",
        citation=Citation(
            authors="Z. Shao, K. Yang, W. Zhou",
            title="Performance evaluation of single-label and multi-label remote sensing image "
            "retrieval using a dense labeling dataset",
            venue="Remote Sensing 10(6), 964",
            year=2018,
            doi="10.3390/rs10060964",
        ),
        home="https://sites.google.com/view/zhouwx/dataset",
        licence="not stated; research use; the imagery is public domain (USGS National Map)",
        sources="paper; the multi-label table of UC Merced (B. Chaudhuri, B. Demir, S. Chaudhuri, "
        "L. Bruzzone, IEEE TGRS 56(2), pp. 1144–1158, 2018), from which it grew",
        layouts=("DLRSD/Images", "DLRSD", "UCMerced_LandUse/Images"),
        notes="The images of UC Merced with a label for every pixel. An image's labels are those "
        "on any of its pixels; the multi-label table of UC Merced has the same 17.",
    ),
    Entry(
        name="whdld",
        title="WHDLD",
        classes=_names("bare soil, building, pavement, road, vegetation, water"),
        class_count=6,
        images=4940,
        folders=(),
        size=(256, 256),
        gsd=(2.0, 2.0),
        labels="multi",
        citation=Citation(
            authors="Z. Shao, W. Zhou, X. Deng, M. Zhang, Q. Cheng",
            title="Multilabel remote sensing image retrieval based on fully convolutional network",
            venue="IEEE Journal of Selected Topics in Applied Earth Observations and Remote "
            "Sensing 13, pp. 318–328",
            year=2020,
            doi=None,
        ),
        home="https://sites.google.com/view/zhouwx/dataset",
        licence="not stated; research use",
        sources="paper, as quoted in the MLRSIR-NET paper, section 4",
        layouts=("WHDLD/Images", "WHDLD"),
        notes="Urban Wuhan, a label for every pixel. An image's labels are those on any of its "
        "pixels; make a table of them to train on it.",
    ),
)

ENTRIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ALL})
"""The benchmark sets by name, in the order in which the papers use them."""
