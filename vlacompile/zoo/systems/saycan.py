"""SayCan: of all skills the one that a language model finds useful and a value function possible, and its policy."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, IMAGENET, MASK, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes
from vlacompile.zoo.blocks.resnet import ResNet
from vlacompile.zoo.blocks.token_trie import TrieScores
from vlacompile.zoo.system import TINY, Published, System

CAMERA, SKILL = "image", "skill"
WAYPOINTS, ACTION = 10, 7

OBJECTS = ("apple", "banana", "orange", "coke can", "sprite can", "pepsi can", "red bull can", "water bottle",
           "tea bottle", "lime soda", "grapefruit soda", "rice chips", "jalapeno chips", "multigrain chips",
           "energy bar", "sponge", "bowl")
PLACES = ("close counter", "far counter", "table", "trash can", "bin")
DRAWERS = ("top drawer", "middle drawer", "bottom drawer")


def skills(objects: tuple[str, ...], places: tuple[str, ...], count: int) -> list[str]:
    """The first `count` of the skills; the last is to have done all."""
    found = [f"{verb} the {x}" for verb in ("find", "pick up", "bring", "knock over", "place upright") for x in objects]
    found += [f"{verb} the {x}" for verb in ("open", "close", "go to") for x in DRAWERS]
    found += [f"go to the {p}" for p in places] + [f"wipe the {p}" for p in places]
    found += [f"put the {x} at the {p}" for x in objects for p in places]
    found += [f"take the {x} out of the {d}" for x in objects for d in DRAWERS]
    found += [f"put the {x} into the {d}" for x in objects for d in DRAWERS]
    found += [f"move the {x} near the {y}" for x in objects for y in objects if x != y]
    assert len(found) >= count - 1, f"{len(found)} skills"
    return [*found[:count - 1], "done"]


def tokens_of(text: str, vocabulary: int) -> list[int]:
    """A token per word, and one that ends the skill."""
    return [1 + zlib.crc32(word.encode()) % (vocabulary - 1) for word in [*text.split(), "."]]


QWEN = LanguageSizes(896, 24, 14, 2, 4864, 151936, base=1e6, bias=True)  # Qwen2-0.5B


@dataclass(frozen=True)
class Sizes:
    """length: of the prompt with its instruction and what was done. embedding: width of a skill's sentence. frame: side
    in pixels."""

    language: LanguageSizes = QWEN
    length: int = 512
    vision: int = 64
    embedding: int = 512
    frame: int = 224
    objects: tuple[str, ...] = OBJECTS
    places: tuple[str, ...] = PLACES
    skills: int = 551


SMALL = Sizes(replace(QWEN, width=32, depth=2, heads=4, hidden=64, vocabulary=500), 24, 4, 16, 32,
              OBJECTS[:3], PLACES[:2], 49)


class Value(nn.Module):
    """How likely each skill would succeed: an image's features by each skill's."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.vision = ResNet(18, sizes.vision)
        self.project = nn.Linear(self.vision.channels, sizes.embedding)

    def forward(self, pixels: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        """-> logits [1,skills]"""
        return self.project(self.vision(pixels).mean((2, 3))) @ sentences.T / sentences.shape[1] ** 0.5


class BcZ(nn.Module):
    """A policy per sentence (Jang et al. 2022, arXiv 2202.02005): FiLM in every block of a ResNet-18, and heads for
    moves, turns and gripper."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.vision = ResNet(18, sizes.vision)
        widths = [block.bn2.num_features for block in self.vision.blocks]
        self.films = nn.ModuleList(nn.Linear(sizes.embedding, 2 * w) for w in widths)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(self.vision.channels, 256), nn.ReLU(), nn.Linear(256, WAYPOINTS * n))
            for n in (3, 3, 1))

    def forward(self, pixels: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
        films = [film(sentence)[..., None, None].chunk(2, 1) for film in self.films]
        x = self.vision(pixels, films).mean((2, 3))
        move, turn, gripper = (head(x).view(1, WAYPOINTS, -1) for head in self.heads)
        return torch.cat([move, turn, torch.sigmoid(gripper)], -1)


class SayCan(nn.Module):
    """Token ids i64 [1,length] of the instruction and what was done so far with their mask, a frame u8
    [1,side,side,3], the skill that is carried out i64 [1] -> {"action": f32 [1,10,7], "chosen": i64 [1]: the skill to
    carry out next, "useful": f32 [1,skills]: log-probabilities, "possible": f32 [1,skills]: chances}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.language = LanguageModel(sizes.language)
        said = skills(sizes.objects, sizes.places, sizes.skills)
        self.scores = TrieScores([tokens_of(s, sizes.language.vocabulary) for s in said])
        self.register_buffer("sentences", torch.randn(len(said), sizes.embedding))
        self.value, self.policy = Value(sizes), BcZ(sizes)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of all tokens."""
        return F.linear(hidden, self.language.embed_tokens.weight)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = unit(inputs[CAMERA], *IMAGENET)
        useful = self.scores(self.language, self.head, inputs[TOKENS], inputs[MASK])
        possible = self.value(pixels, self.sentences)
        return {"action": self.policy(pixels, self.sentences[inputs[SKILL]]),
                "chosen": (useful + F.logsigmoid(possible)).argmax(-1), "useful": useful,
                "possible": torch.sigmoid(possible)}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(sizes.length, sizes.language.vocabulary, 9)
    example = {TOKENS: tokens, MASK: mask, CAMERA: frame(sizes.frame), SKILL: torch.tensor([7])}
    return Policy("saycan", SayCan(sizes).eval(), {TOKENS: TASK, MASK: TASK, CAMERA: FRAME, SKILL: TASK}, example,
                  outputs=("action", "chosen", "useful", "possible"), execute=1)


_PAPER = "arXiv 2204.01691"
SYSTEM = System(
    "SayCan", 2022, 2, f"{_PAPER}; its policy: BC-Z, arXiv 2202.02005", make,
    says=("the skill that is useful and possible, and its policy",),
    code="Apache-2.0 (a notebook)",
    assumptions=(
        "the language model is Qwen2-0.5B in place of PaLM-540B; probabilities are among the tokens that occur in "
        "skills, and a skill's score is their sum of logarithms",
        "551 skills as in the paper, of names made up here, with a token per word",
        "the value function is a ResNet-18 whose features are compared with those of each skill's sentence; the "
        "authors' are Q-functions of MT-Opt, or a detector",
        "the policy sees one frame of 224 pixels and gives ten waypoints, of which one is carried out",
    ),
    published=(
        Published("success", 84, "% of plans", "101 instructions, PaLM-SayCan", _PAPER),
        Published("success", 74, "% of tasks", "101 instructions, PaLM-SayCan", _PAPER),
    ))
