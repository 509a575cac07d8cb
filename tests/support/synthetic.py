"""Small networks, pictures and data sets that tests make up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.network.candidates import Segmentation
from model.network.config import NetworkConfig, ReaderConfig
from model.network.features import ImageFeatures
from model.network.refcut import RefCut

TINY_SIMPLECLICK = NetworkConfig(
    embed_dim=32,
    depth=8,
    heads=2,
    network_px=64,
    position_grid=4,
    neck_channels=(8, 8, 8, 8),
    head_channels=8,
)
TINY_FROZEN = NetworkConfig(
    embed_dim=32,
    depth=4,
    heads=2,
    patch_px=14,
    network_px=56,
    position_grid=4,
    class_token=True,
    layer_scale=True,
    windowed=False,
    fusion_block=2,
    reference_features="frozen",
    comparison_blocks=(2, 3),
    similarity=True,
    learned_similarity_dim=8,
    prompt_norm=True,
    neck_channels=(8, 8, 8, 8),
    head_channels=8,
    detail_channels=8,
    prompt_hidden_dim=16,
    neck_inner_32_dim=16,
)
TINY_READER = ReaderConfig(
    width=16,
    blocks=1,
    heads=2,
    matching_heads=2,
    matching_dim=8,
    embedding_dim=8,
    hidden=12,
    refine_blocks=1,
    affinity_heads=2,
    affinity_dim=4,
)
TINY_READING = dataclasses.replace(
    TINY_FROZEN, learned_similarity_dim=0, reader=TINY_READER, candidates=3, box_input=True
)
TINY_CONFIGS = {"simpleclick": TINY_SIMPLECLICK, "frozen": TINY_FROZEN, "reader": TINY_READING}


def random_network(config: NetworkConfig, seed: int = 0) -> RefCut:
    """A network in evaluation mode with no layer left at zero, so that everything in it matters."""
    return _filled(RefCut, config, seed)


class Obedient(RefCut):
    """A network whose mask follows the clicks and, a little, all else: its masks are small, so that zooming begins."""

    def segment_compared(
        self, features: ImageFeatures, coords: Tensor, prompt: Tensor | None, channels: Tensor | None
    ) -> Segmentation:
        plain = super().segment_compared(features, coords, prompt, channels)
        height, width = plain.logits.shape[-2:]
        previous, positive, negative = F.adaptive_avg_pool2d(coords[:, :3], (height, width)).chunk(3, dim=1)
        return Segmentation(plain.logits + 16 * (positive - negative) + 2 * previous - 6, plain.quality)


def obedient_network(config: NetworkConfig, seed: int = 0) -> RefCut:
    """As `random_network`."""
    return _filled(Obedient, config, seed)


def _filled(kind: type[RefCut], config: NetworkConfig, seed: int) -> RefCut:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def drawn_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of soft colours with a few discs."""
    rng = default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, 3)
    for _ in range(4):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(image, centre, max(1, min(height, width) // 6), rng.integers(0, 256, 3).tolist(), -1)
    return image.astype(np.uint8)


def drawn_objects(folder: Path, count: int) -> list[AnnotatedObject]:
    """A data set of `count` photographs of one object with two parts, written to `folder` and read back."""
    rng = default_rng(1)
    images, annotations = [], []
    for number in range(count):
        picture = drawn_image(96, 128, seed=number)
        row, col = int(rng.integers(30, 60)), int(rng.integers(30, 60))
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png"})
        for part, left in ((1, col), (2, col + 22)):
            mask = np.zeros((96, 128), np.uint8)
            mask[row - 14 : row + 14, left : left + 22] = 1
            rle = coco_mask.encode(np.asfortranarray(mask))
            rle["counts"] = rle["counts"].decode()
            annotations.append({"image_id": number, "category_id": part, "object_id": 0, "segmentation": rle})
    categories = [
        {"id": 1, "name": "head", "supercategory": "fish"},
        {"id": 2, "name": "tail", "supercategory": "fish"},
    ]
    json_path = folder / "parts.json"
    json_path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return read_annotated_objects(json_path, folder, grouping="object")
