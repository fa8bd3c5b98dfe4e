"""OWL-ViT (Minderer et al. 2022, arXiv 2205.06230): each patch of a CLIP has a box and is compared with texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.zoo.blocks.clip import ClipImage, ClipText, ImageSizes, TextSizes

TEXT = TextSizes(length=16)
IMAGE = ImageSizes(768, 12, 12, 32, 768)


class OwlViT(nn.Module):
    """Texts are encoded apart from images, so that they need it once."""

    def __init__(self, text: TextSizes = TEXT, image: ImageSizes = IMAGE):
        super().__init__()
        width, self.side = image.width, image.side // image.patch
        self.text, self.image = ClipText(text), ClipImage(image)
        self.ln_post, self.layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.embed, self.shift, self.scale = nn.Linear(width, text.out), nn.Linear(width, 1), nn.Linear(width, 1)
        self.boxes = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
                                   nn.Linear(width, 4))
        self.register_buffer("places", _places(self.side), persistent=False)

    def queries(self, tokens: torch.Tensor) -> torch.Tensor:
        """i64 [q,length] -> [q,out]"""
        return F.normalize(self.text(tokens), dim=-1)

    def forward(self, pixels: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pixels f32 [1,3,side,side] -> (boxes f32 [1,n,4]: centre, width and height, as parts of the frame; logits
        [1,n,q])."""
        x = self.ln_post(self.image(pixels))
        x = self.layer_norm(x[:, 1:] * x[:, :1])
        logits = F.normalize(self.embed(x), dim=-1) @ queries.T
        return torch.sigmoid(self.boxes(x) + self.places), (logits + self.shift(x)) * (F.elu(self.scale(x)) + 1)


def _places(side: int) -> torch.Tensor:
    """[n,4]: what makes a box without features lie at its patch, as large as that."""
    ends = torch.arange(1, side + 1) / side
    rows, columns = torch.meshgrid(ends, ends, indexing="ij")
    at = torch.stack([columns, rows], -1).flatten(0, 1)
    return torch.cat([_logit(at), _logit(torch.full_like(at, 1 / side))], 1)


def _logit(share: torch.Tensor) -> torch.Tensor:
    return torch.log(share + 1e-4) - torch.log1p(-share + 1e-4)


# Names of this module's tensors, which are those of CLIP's own code -> of transformers' OwlViTForObjectDetection.
_TRANSFORMERS = (
    (r"^text\.transformer\.resblocks\.", "owlvit.text_model.encoder.layers."),
    (r"^image\.transformer\.resblocks\.", "owlvit.vision_model.encoder.layers."), (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."), (r"\.mlp\.c_proj\.", ".mlp.fc2."), (r"\.attn\.", ".self_attn."),
    (r"^text\.positional_embedding$", "owlvit.text_model.embeddings.position_embedding.weight"),
    (r"^text\.token_embedding\.", "owlvit.text_model.embeddings.token_embedding."),
    (r"^text\.ln_final\.", "owlvit.text_model.final_layer_norm."),
    (r"^text\.text_projection$", "owlvit.text_projection.weight"),
    (r"^image\.class_embedding$", "owlvit.vision_model.embeddings.class_embedding"),
    (r"^image\.conv1\.", "owlvit.vision_model.embeddings.patch_embedding."),
    (r"^image\.positional_embedding$", "owlvit.vision_model.embeddings.position_embedding.weight"),
    (r"^image\.ln_pre\.", "owlvit.vision_model.pre_layernorm."),
    (r"^ln_post\.", "owlvit.vision_model.post_layernorm."), (r"^embed\.", "class_head.dense0."),
    (r"^(shift|scale)\.", r"class_head.logit_\1."), (r"^boxes\.0\.", "box_head.dense0."),
    (r"^boxes\.2\.", "box_head.dense1."), (r"^boxes\.4\.", "box_head.dense2."))
UNREAD = ("owlvit.logit_scale", "owlvit.visual_projection.weight", "*.position_ids")


def places(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """{tensor of this module: those of transformers that it is joined from}"""
    found = {}
    for name in names:
        theirs = name
        for pattern, new in _TRANSFORMERS:
            theirs = re.sub(pattern, new, theirs)
        found[name] = tuple(theirs.replace("in_proj_", f"{part}_proj.") for part in "qkv") if "in_proj_" in theirs \
            else (theirs,)
    return found


def of_transformers(files: TensorFiles) -> TensorFiles:
    """Laid out as here: the projection of texts is a matrix from the left."""
    return files.changed(lambda n: (n, torch.t if n == "owlvit.text_projection.weight" else lambda x: x))
