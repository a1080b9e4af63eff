"""Pairs of text that a tokenizer could get wrong, and ordinary ones: the same list every time.

The goldens are recorded for `PAIRS` in this order; after a change here, run record_goldens.py again. `make_pairs` makes
as many more as are wanted.
"""

import hashlib
import json
import random

QUERY = "Which bridge over the river was built first?"
PASSAGE = "The stone bridge was finished in 1342, long before the iron one; both still carry traffic."

HOSTILE = [
    "",
    " ",
    "\t\r\n \x0b\x0c",
    "\u3000ideographic\u3000space\u3000",
    "no\u00a0break\u2007space\u202fnarrow\u2009thin\u200ahair",
    "zero\u200bwidth\u200cnon\u200djoiner\u2060and\ufeffmark",
    "line\u2028separator\u2029paragraph\x85next",
    "nul\x00in\x00the\x00middle",
    "\x00",
    "bell\x07 escape\x1b[31m delete\x7f c1\x9f",
    "replacement \ufffd character and private \ue000\U0010ffff use",
    "unassigned \u0378 and noncharacter \ufdd0",
    "[SEP]",
    "before [SEP] after [CLS] and [MASK] then [PAD] or [UNK]",
    "[sep] [Sep] [SEP ] [ SEP] [[SEP]] x[SEP]y",
    "[CLS] [SEP] [SEP] [SEP]",
    "##ing ## ##a a##b #hash",
    "<s> </s> <pad> <mask> <|endoftext|>",
    "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00c5ngstr\u00f6m",
    "cafe\u0301 nai\u0308ve re\u0301sume\u0301 A\u030angstro\u0308m",
    "\u0301\u0308\u030a",
    "\u0301 leading mark, trailing mark \u0301",
    "z\u0351\u036b\u0343\u036a\u0302\u036b\u033da\u030f\u0334\u0319l\u0323\u031eg\u0321\u0317o",
    "Stra\u00dfe STRASSE \u1e9e \u0130stanbul \u0131s\u0131 \ufb01n \ufb00",
    "\u0391\u03b8\u03ae\u03bd\u03b1 \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u039f\u0394\u039f\u03a3",
    "\u041c\u043e\u0441\u043a\u0432\u0430 \u0439\u0438\u0306 \u0451\u0435\u0308",
    "\u6771\u4eac\u90fd\u306e\u4eba\u53e3\u306f\uff1f \u5317\u4eac\u662f\u9996\u90fd\u3002",
    "\u30ab\u30bf\u30ab\u30ca \u304b\u3099\u304d\u3099 \uff76\uff9e \ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "\u6df7mixed\u5b57text\u3068words\uff1a123\u5186",
    "\U00020000\U0002a6d6 rare \U00031350 ideographs \uf900",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "\u202eright to left\u202c \u2067isolate\u2069 \u200fmark\u200e",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u1019\u103c\u1014\u103a\u1019\u102c",
    "\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea",
    "\u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3 \u263a \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f",
    "x" * 100,
    "x" * 101,
    "a" * 3000 + " short " + "b" * 150,
    "super" + "extra" * 40 + "ordinary",
    "\u6f22" * 130,
    "3,520,031 1e-12 0x1F -7.50 \u00bd \u2167 \u0663\u0664 1/2 50% $9.99 12:30",
    "don't can't it's l'eau rock'n'roll \u2018curly\u2019 \u201cquotes\u201d",
    "e-mail@example.org https://example.org/a?b=c&d=%20#e C:\\dir\\file.txt",
    "!!! ??? ... --- *** ((())) {}[]<> ~`^|\\ \u2026 \u2014 \u00bf\u00a1",
    "\u00a9 \u00ae \u2122 \u20ac \u00a3 \u221a \u2211 \u222b \u2260 \u2192 \u00b0C \u00b5m H\u2082O x\u00b2",
    "\uff26\uff35\uff2c\uff2c \uff57\uff49\uff44\uff54\uff48 \uff01",
    "\U0001d4d0\U0001d4d1 \U0001d552\U0001d553 mathematical \u24d0\u24d1 circled",
    "CamelCaseWords and SHOUTING and sPoNgE",
    "tab\tseparated\tcells\nand a\nsecond line\r\nand a third",
    "   leading and trailing spaces   ",
    "many      spaces        inside",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "word",
    "\u00adsoft\u00adhyphen\u00ad and \u2011non\u2011breaking",
    "\u1e69 s\u0323\u0307 s\u0307\u0323 \u212b \u212a \u2126",
]

QUERIES = [
    "how do bees find their way home",
    "What is the boiling point of water at high altitude?",
    "capital of the island republic",
    "Why does bread rise when it is baked?",
    "treatment of a sprained ankle",
    "When was the first railway line in the valley opened?",
    "sort a list of numbers in python",
    "Who wrote the letters found in the old house?",
    "difference between weather and climate",
    "best time to plant tomatoes",
]

PASSAGES = [
    "Honey bees remember landmarks and use the position of the sun, even behind clouds, to return to the hive.",
    "Water boils at a lower temperature in the mountains, because the air presses on it with less weight.",
    "The republic is made of three islands; its capital and only harbour lies on the southern one.",
    "Yeast eats sugar and gives off gas. The gas stretches the dough into bubbles, and the oven makes them firm.",
    "Rest, ice and a tight bandage help against the swelling; walking is possible again after about two weeks.",
    "The line was opened on 4 May 1871 and closed in 1968. Today a cycle path follows it.",
    "Calling sorted(values) returns a new list, while values.sort() changes the list itself.",
    "Nobody knows who wrote them. The paper is from the 1780s, and the ink was made of oak galls.",
    "Weather is what happens today, climate is what can be expected over many years.",
    "Plant them outside only after the last night of frost, in a sunny place without too much wind.",
]

FRAGMENTS = [text for text in HOSTILE if 0 < len(text) <= 60]


def _truncated_pairs() -> list[tuple[str, str]]:
    """Make pairs near and above the limits of 64 and 512 tokens, with equal and unequal sides."""
    sizes = [(60, 61), (30, 31), (31, 31), (29, 90), (90, 29), (64, 64), (63, 64), (0, 70), (70, 0), (1, 600), (600, 1)]
    sizes += [(254, 255), (255, 255), (254, 254), (255, 254), (600, 600), (600, 601), (256, 1000), (1000, 256)]
    sizes += [(10, 499), (10, 498), (10, 500), (509, 0), (0, 510), (510, 1), (253, 257), (257, 253), (700, 200)]
    words = " ".join(QUERIES + PASSAGES).lower().replace(".", "").replace("?", "").split()

    def text(size: int, start: int) -> str:
        return " ".join(words[(start + 7 * i) % len(words)] for i in range(size))

    unequal = [(text(first, i), text(second, 3 * i + 1)) for i, (first, second) in enumerate(sizes)]
    equal = [
        (text(size, 0), text(size, 0)) for size in (25, 31, 64, 400)
    ]  # of both texts, the second gets the odd token
    return unequal + equal


def _mixed_pairs(count: int) -> list[tuple[str, str]]:
    """Join fragments of all scripts, in an order that no Python version changes: only random() promises that."""
    generator = random.Random(20)

    def text() -> str:
        pieces = [FRAGMENTS[int(generator.random() * len(FRAGMENTS))] for _ in range(1 + int(generator.random() * 4))]
        return (" " if generator.random() < 0.7 else "").join(pieces)

    return [(text(), text()) for _ in range(count)]


PAIRS: list[tuple[str, str]] = [
    *((query, passage) for query in QUERIES for passage in PASSAGES),
    *((text, PASSAGE) for text in HOSTILE),
    *((QUERY, text) for text in HOSTILE),
    *zip(HOSTILE, HOSTILE[1:] + HOSTILE[:1], strict=True),
    ("", ""),
    *_truncated_pairs(),
    *_mixed_pairs(50),
]


def digest(pairs: list[tuple[str, str]]) -> str:
    """Return what goldens hold, to be of no other list."""
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


DIGEST = digest(PAIRS)


# ---- as many as are wanted

BLANKS = [" ", " ", " ", " ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\u00a0", "\u1680"]
BLANKS += [chr(point) for point in range(0x2000, 0x2010)]  # also those of no width, and marks of direction
BLANKS += ["\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u180e", "\ufeff", "\u2581", "\u0120", "\u2420"]
CONTROLS = [chr(point) for point in (*range(0x20), *range(0x7F, 0xA0), 0xAD, 0xFFF9, 0xFFFD, 0xE0001, 0xE007F)]
# Scripts that are mixed within one word: first and last character.
SCRIPTS = [(0x41, 0x7A), (0x30, 0x39), (0x21, 0x2F), (0xC0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5F4)]
SCRIPTS += [(0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2070, 0x218B)]
SCRIPTS += [(0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFF00, 0xFFEF)]
SCRIPTS += [(0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x2F800, 0x2FA1D)]
# Marks above, below and inside, Hebrew's and Arabic's in their own order, voiced sounds, Hangul's vowels and ends.
MARKS = [(0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x65F), (0x93C, 0x94D), (0x3099, 0x309A), (0x1161, 0x1175)]
MARKS += [(0x11A8, 0x11C2), (0x1AB0, 0x1ABE), (0x20D0, 0x20F0), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F), (0x1D165, 0x1D169)]
REPEATED = [
    "a",
    "ab ",
    "\u6771",
    "[SEP]",
    "e\u0301",
    "\x00",
    " ",
    "\n",
    "1",
    "'s",
    "\U0001f469\u200d",
    "\ufdfa",
    "...",
    "\u0301",
]
ENGLISH = [*" ".join(QUERIES + PASSAGES).split(), "don't", "WE'LL", "he'd", "I'M", "3,520,031", "a1b2", "x_y", "e.g."]


class Maker:
    """Makes hostile texts from a seed; only `random.random` is used, whose numbers no Python version changes."""

    def __init__(self, seed: int, added: list[str]) -> None:
        self.random = random.Random(seed).random
        self.added = added or ["[SEP]"]

    def number(self, low: int, high: int) -> int:
        """Return a number from low to high."""
        return low + int(self.random() * (high - low + 1))

    def choice(self, options: list) -> object:
        """Return one of several things."""
        return options[self.number(0, len(options) - 1)]

    def text(self) -> str:
        """Return a text of some pieces, rarely of very many or of none."""
        kinds = [self.words, self.words, self.blanks, self.marked, self.mixed, self.any_plane, self.added_token]
        kinds += [self.added_token, self.controls, self.repeats, self.fragment]
        count = self.number(1, 12) if self.random() < 0.97 else self.choice([0, 60])
        return "".join(self.choice(kinds)() for _ in range(count))

    def words(self) -> str:
        return " ".join(self.choice(ENGLISH) for _ in range(self.number(1, 8))) + self.choice(["", " ", ". "])

    def blanks(self) -> str:
        """Return 1 to 30 blanks of one kind, or of several."""
        if self.random() < 0.7:
            return self.choice(BLANKS) * self.number(1, 30)
        return "".join(self.choice(BLANKS) for _ in range(self.number(1, 30)))

    def marked(self) -> str:
        """Return letters with stacks of marks, sometimes without a letter to stand on."""
        letters = "".join(self.of(SCRIPTS) + self.stack(4) for _ in range(self.number(1, 4)))
        return letters if self.random() < 0.7 else self.stack(6)

    def stack(self, highest: int) -> str:
        return "".join(self.of(MARKS) for _ in range(self.number(0, highest)))

    def mixed(self) -> str:
        return "".join(self.of(SCRIPTS) for _ in range(self.number(1, 10)))

    def of(self, ranges: list[tuple[int, int]]) -> str:
        return chr(self.number(*self.choice(ranges)))

    def any_plane(self) -> str:
        """Return characters of all planes, assigned or not; no surrogates, which are no text."""
        points = [self.number(0, 0x10FFFF) for _ in range(self.number(1, 5))]
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)

    def added_token(self) -> str:
        """Return the text of an added token: whole, or cut, or in other letters, with something close by."""
        token = self.choice(self.added)
        kind = self.number(0, 9)
        if kind == 0:
            token = token[: self.number(0, len(token))]
        elif kind == 1:
            token = token.swapcase()
        elif kind == 2:
            at = self.number(0, len(token))
            token = token[:at] + self.choice(["\u0301", "\u200d", " ", "\x00"]) + token[at:]
        elif kind == 3:
            token = token * self.number(2, 4)
        before, after = (self.choice(["", "", " ", "  ", "\n", "\t ", "a", "\u3000", "\u0301"]) for _ in range(2))
        return before + token + after

    def controls(self) -> str:
        return "".join(self.choice(CONTROLS) for _ in range(self.number(1, 4)))

    def repeats(self) -> str:
        return self.choice(REPEATED) * self.number(1, 60)

    def fragment(self) -> str:
        return self.choice(FRAGMENTS)


def make_pairs(count: int, added: list[str], seed: int = 1) -> list[tuple[str, str]]:
    """Make hostile pairs for a tokenizer that has these added tokens; the same at every call."""
    maker = Maker(seed, added)
    return [(maker.text(), maker.text()) for _ in range(count)]
