"""FAST (Pertsch et al. 2025, arXiv 2501.09747): actions as byte-pair encoded integers of a discrete cosine transform.

The inverse is a decoder of the runtime: tokens -> the integers that each stands for -> the inverse transform, a
constant matrix -> robot units. Must not know policy types.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.frontends.finite_numbers import finite_numbers
from vlacompile.frontends.hub import directory
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.tokenizer_files import TOKENIZER, tokenizer_json
from vlacompile.policy.action_decoding import Affine, Decoder, Delta, Pieces, byte_pieces, inverse_dct
from vlart.errors import SourceError

PROCESSOR, TOKENIZER_CONFIG, WITHIN = "processor_config.json", "tokenizer_config.json", "bpe_tokenizer"


@dataclass(frozen=True)
class Fast:
    """pieces: the symbols of every token, of which integers are made, counted from `lowest`; symbols: as of `Pieces`.
    scale: what coefficients were multiplied by."""

    pieces: tuple[tuple[int, ...], ...]
    lowest: int
    scale: float
    symbols: str = "utf8"

    def decoder(self, shape: tuple[int, int], first: int, direction: int, stop: int, *units: Affine | Delta) -> Decoder:
        """shape: steps and dimensions of a chunk. first: the language model's id of token 0, from which ids count in
        this direction. stop: the id behind the actions. units: from the transform's range to the robot's.

        Other tokens, as the words before the actions, are skipped. A sequence of another length is cut, or filled with
        zeros, as LeRobot's relaxed decoding does; the authors' code makes the whole chunk zeros.
        """
        taken = Pieces(self.pieces, shape, self.symbols, self.lowest, first, direction, stop, "skip", "fit")
        return Decoder((taken, inverse_dct(shape[0], self.scale), *units))


def read_fast(source: str) -> Fast:
    """Of the files that a training of FAST wrote, without their code. source: a directory, or a name on the Hub. Raises
    SourceError."""
    folder = directory(source, weights=False)
    settings = read_json(folder / PROCESSOR)
    lowest, scale = settings.get("min_token", 0), finite_numbers([settings.get("scale", 10)])
    if isinstance(lowest, bool) or not isinstance(lowest, int) or scale is None or scale[0] <= 0:
        raise SourceError("the action tokenizer's settings cannot be read", where=str(folder / PROCESSOR),
                          why=f"min_token = {lowest!r} is a whole number, scale = {settings.get('scale')!r} is above 0",
                          fix="copy the files of the action tokenizer again")
    place = folder if (folder / TOKENIZER).is_file() else folder / WITHIN
    config = place / TOKENIZER_CONFIG
    if config.is_file() and read_json(config).get("clean_up_tokenization_spaces"):
        raise SourceError("the action tokenizer changes what it decodes", where=str(config),
                          why="clean_up_tokenization_spaces removes blanks before punctuation, which are coefficients",
                          fix="set it to false, as the published tokenizer has it")
    return Fast(byte_pieces(tokenizer_json(place / TOKENIZER)), lowest, scale[0])
