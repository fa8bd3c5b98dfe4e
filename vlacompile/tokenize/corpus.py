"""Test texts on which a table must give the ids of the original: instructions, languages, odd characters, random text,
and every character by itself. The same for every build."""

from __future__ import annotations

import random

from vlacompile.tokenize.characters import POINTS

INSTRUCTIONS = (
    "put the bowl on the plate", "open the middle drawer of the cabinet", "turn on the stove",
    "put the wine bottle on top of the cabinet",
    "pick up the black bowl between the plate and the ramekin and place it "
    "on the plate", "push the plate to the front of the stove", "put the cream cheese in the bowl\n",
    "Grasp the RED block, then drop it 12.5cm to the left!", "What action should the robot take to stack 3 cups?",
    "Task: fold the towel;\nState: 12 255 0 131 7;\nAction: ", "don't touch it, it's hot; we'll wait, I'd say they've "
    "gone, you're next, I'm sure", "DON'T  IT'S I'LL WE'RE", "user: move(x=-0.25, y=+1e-3) # now",
)
LANGUAGES = (
    "Lege den Apfel in die Schüssel, größer als Maß.", "Pose l'assiette à côté de l'évier, s'il te plaît.",
    "¿Dónde está el cajón? Ábrelo, niño.", "Połóż żółtą piłkę na półce; źdźbło", "İstanbul'da ıspanak IĞDIR",
    "Поставь чашку на стол, ёлка", "Βάλε το φλιτζάνι στο τραπέζι ΣΟΦΟΣ", "ضع الكوب على الطاولة",
    "שים את הספל על השולחן, שָׁלוֹם",
    "把碗放到盘子上。", "引き出しを開けてください、ｶﾀｶﾅ", "서랍을 열어 주세요 각", "कप को मेज पर रखो क़", "วางถ้วยไว้บนโต๊ะ",
    "Đặt cốc lên bàn ngưỡng",
    "ß ﬁ ﬀ Ǆ ŉ ſ K Å Ω", "እባክህ ክፈት", "Čeština: příliš žluťoučký kůň",
)
ODD = (
    "", " ", "  ", "   \n \t x", "\n\n\n", "a\u00a0b\u2003c\u3000d\u2028e", "tab\there\r\nand\rthere", "trailing   ",
    "   leading", "a   b    c     d", " " * 200 + "x", "x" * 101, "y" * 100 + " " + "z" * 300,
    "\u0000\u0001\u001f\u007f\u0085",
    "\ufeffbom\u200bzero\u200dwidth\u00adsoft", "\ufffd\ufffe\U0010ffff",
    "e\u0301 a\u0323\u0307 a\u0307\u0323 \u0301alone",
    "\u1e9b\u0323 \u212b \u03d3 q\u0307\u0323", "👍🏽 👩‍👩‍👧‍👦 🤖 🇨🇭 ☕️ 1️⃣", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 ⅷ ½ ² ₂ ①",
    "0123456789 1e-7 3.14159 1,000,000 ١٢٣ १२३",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~", "...—–‘’“”«»…·•", "$5 £5 €5 ¥5 ^ ` ~ + < = > |",
    "a\u0300\u0301\u0302\u0303" * 5,
    "'s 'S 'ſ ''s '' 'll'LL", "\r\n\r\n  \n a", "▁▁ a▁b ▁", "<0x41> <unk> </s> <s> ##ing ## Ġ Ċ", "a<b>c</b> &amp; {x}",
    "\U0001d15e\U0001d16d\u302e\u302f", "각각\u11a8 \u1100\u1161\u11a8", "Å\u0327\u0328",
)
ALPHABETS = (
    (0x20, 0x7E), (0x00, 0x2FF), (0x300, 0x36F), (0x370, 0x58F), (0x590, 0x8FF), (0x900, 0x11FF), (0x1E00, 0x20CF),
    (0x2E80, 0x33FF), (0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x1F300, 0x1FAFF), (0x10000, 0x10FFFF),
)


def corpus(added: tuple[str, ...], texts: tuple[str, ...] = (), seed: int = 0) -> list[str]:
    """added: tokens that the original matches in the text. texts: those that the policy is known to be used with."""
    draw = random.Random(seed)
    found = [*texts, *INSTRUCTIONS, *LANGUAGES, *ODD, *_around_tokens(added)]
    found += [c * n for c in "ex" for n in (20, 21, 100, 101, 200, 201)]
    found += [t.upper() for t in found[:40]] + [t.title() for t in found[:40]]
    for length in (1, 2, 3, 5, 8, 13, 40):
        for _ in range(40):
            found.append("".join(_character(draw) for _ in range(length)))
    words = " ".join(INSTRUCTIONS).split()
    for _ in range(100):
        found.append("".join(draw.choice(words) + draw.choice((" ", "  ", "", "\n", ", ", "'", _character(draw)))
                             for _ in range(draw.randrange(1, 12))))
    return list(dict.fromkeys(found))


def characters(stride: int = 1, block: int = 64) -> list[str]:
    """Every character, once between letters and once between spaces, `block` of them per text. stride: in a quick
    check, take only every stride-th of the ideographs, syllables, private and unassigned code points."""
    points = POINTS if stride == 1 else [
        c for i, c in enumerate(POINTS) if c < 0x3400 or 0xA000 <= c < 0xAC00 or 0xF900 <= c < 0x12000
        or i % stride == 0]
    rows = [points[i: i + block] for i in range(0, len(points), block)]
    return ["a".join(map(chr, row)) for row in rows] + [" ".join(map(chr, row)) for row in rows]


def _character(draw: random.Random) -> str:
    while True:
        c = draw.randint(*draw.choice(ALPHABETS))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def _around_tokens(added: tuple[str, ...]) -> list[str]:
    """Added tokens within texts, with various neighbours."""
    added = (*added[:8], *added[-8:])
    found = [f(a) for a in added for f in (str, "a{}b".format, " {} ".format, "a  {}\n\nb".format, "{0}{0}".format)]
    return found + [a[:-1] + b for a in added for b in added]
