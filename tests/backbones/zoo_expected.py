"""What the trace must find in each network of the zoo: prunable groups as name:size, frozen layers with the cause."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, str] = {
    "Residual": "stem:8 tail:6",
    "DenseConcat": "stem:8 one:4 two:4 tail:6",
    "GatedHalves": "stem:4 tail:6",
    "Glu": "stem:4 tail:6",
    "UntiedHalves": "left:3 right:3 tail:6",
    "ChunkedHalves": "stem:4 left:3 right:3 tail:6",
    "SlicedHalves": "stem:4 left:3 right:3 tail:6",
    "NestedHalves": "stem:2 inner:2 tail:6",
    "UnequalSplit": "left:3 right:3 tail:6",
    "ViewShuffle": "stem:2 inner:4 tail:6",
    "LibraryShuffle": "stem:2 inner:4 tail:6",
    "PixelShuffle": "stem:2 tail:6",
    "PixelUnshuffle": "stem:8 tail:6",
    "SpaceToDepth": "stem:8 tail:6",
    "Maxout": "stem:4 tail:6",
    "Grouped": "stem:2 inner:3 out:8 tail:6",
    "Depthwise": "stem:8 tail:6",
    "Transposed": "stem:8 up:3 grouped:3 tail:6",
    "GroupNorm": "stem:4 tail:6",
    "PlainGroupNorm": "stem:4 tail:6",
    "InstanceNorm": "stem:8 tail:6",
    "PlainBatchNorm": "stem:8 tail:6",
    "LayerNorm": "stem:8 tail:6",
    "RmsNorm": "stem:8 tail:6",
    "LayerNormOfImage": "stem:8 tail:6",
    "Prelu": "stem:8 tail:6",
    "SqueezeExcite": "stem:8 down:3 tail:6",
    "LinearSqueezeExcite": "stem:8 down:3 tail:6",
    "EfficientChannelAttention": "tail:6",
    "SpatialAttention": "after:8 tail:6",
    "SelectiveKernel": "stem:8 one:8 tail:6",
    "GlobalResponseNorm": "after:8 tail:6",
    "LayerScale": "stem:8 tail:6",
    "InputNormalisation": "stem:8 tail:6",
    "PositionMap": "stem:8 tail:6",
    "Recycled": "stem:8 tail:6",
    "TiedConvolutions": "stem:8 code:5 tail:6",
    "InPlace": "stem:8 tail:6",
    "SliceAssigned": "stem:5 tail:6",
    "TemporalShift": "tail:6",
    "ChannelPad": "stem:8 tail:6",
    "CatZeros": "stem:4 tail:6",
    "LiteralView": "stem:8 tail:6",
    "CountAsNumber": "inner:8 tail:6",
    "NormalisedChannels": "stem:8 inner:8 tail:6",
    "StandardisedWeights": "tail:6",
    "NormalisedWeights": "tail:6",
    "Products": "stem:8 mix:6 other:8 tail:6",
    "Einsum": "stem:8 mix:6 other:8 tail:6",
    "Unfolded": "tail:6",
    "ChannelsLast": "stem:8 up:20 tail:6",
    "Mixer": "stem:8 mlp.0:12 tail:6",
    "Resampled": "stem:8 tail:6",
    "LocalResponse": "tail:6",
    "Checkpointed": "stem:8 inner.0:10 inner.2:8 tail:6",
    "WithoutGradient": "stem:8 inner:8 tail:6",
    "Permuted": "stem:8 tail:6",
    "Res2": "steps.2:2 tail:6",
    "alexnet": "0:8 3:12 8:20 11:16",
    "resnet50": (
        "0.0:8 2.conv1.0:8 2.conv2.0:8 2.conv3.0:16 3.conv1.0:8 3.conv2.0:8 4.conv1.0:12 4.conv2.0:12 4.conv3.0:24"
    ),
    "resnext": (
        "0.0:8 2.conv1.0:2 2.conv2.0:2 2.conv3.0:16 3.conv1.0:2 3.conv2.0:2 4.conv1.0:3 4.conv2.0:3 4.conv3.0:24"
    ),
    "regnet": (
        "0.0:8 2.conv1.0:4 2.conv2.0:4 2.excite.fc1:4 2.conv3.0:16 3.conv1.0:4 3.conv2.0:4 3.excite.fc1:4 "
        "4.conv1.0:6 4.conv2.0:6 4.excite.fc1:4 4.conv3.0:24"
    ),
    "densenet": (
        "stem.0:8 first.0.conv1:8 first.0.conv2:4 first.1.conv1:8 first.1.conv2:4 first.2.conv1:8 "
        "first.2.conv2:4 transition.2:10 second.0.conv1:8 second.0.conv2:4 second.1.conv1:8 second.1.conv2:4"
    ),
    "googlenet": (
        "stem.0:8 a.one.0:4 a.three.0.0:4 a.three.1.0:6 a.wide.0:4 a.wide.1:4 a.pool.1.0:3 b.one.0:4 "
        "b.three.0.0:4 b.three.1.0:6 b.wide.0:4 b.wide.1:4 b.pool.1.0:3"
    ),
    "squeezenet": "0:8 2.squeeze:4 2.one:6 2.three:6 4.squeeze:4 4.one:8 4.three:8",
    "mobilenet_v2": "0.0:8 1.body.0.0:8 1.body.2.0:6 2.body.0.0:18 3.body.0.0:18 3.body.2.0:10 4.0:20",
    "mobilenet_v3": (
        "0.0:8 1.body.0.0:8 1.body.2.fc1:4 1.body.3.0:6 2.body.0.0:18 2.body.2.fc1:4 3.body.0.0:18 "
        "3.body.2.fc1:4 3.body.3.0:10 4.0:20"
    ),
    "efficientnet": (
        "0.0:8 1.body.0.0:8 1.body.2.fc1:3 1.body.3.0:6 2.body.0.0:18 2.body.2.fc1:3 3.body.0.0:18 "
        "3.body.2.fc1:3 3.body.3.0:10 4.0:20"
    ),
    "shufflenet_v1": "0.0:2 2.a.0:3",
    "shufflenet_v2": "0.0:8 1.long.0.0:6 2.long.0.0:6 3.long.0.0:6 4.short.1.0:4 4.long.0.0:8 5.long.0.0:8 6.0:12",
    "ghostnet": "0.0:8 1.one.primary.0:8 1.excite.fc1:4 1.two.primary.0:4 2.excite.fc1:4",
    "repvgg": "0.0:8",
    "hrnet": "stem.0:8 fork.0:12",
    "xception": "0.0:8 1.point1:12 1.point2:12 2.point1:14 2.point2:14",
    "convnext": "0:8 2.up:32 3.up:32 5:12 6.up:48",
    "unet": "a.0:6 b.0:8 c.0:12 up1:8 d.0:8 up2:6 e.0:6 out.0:2",
    "deeplab": "stem.0:8 mid.0:10 rates.0:6 rates.1:6 pooled.1:6 project.0:8 low:4",
    "pyramid": "stem.0:8 two.0:10 three.0:12 lateral.2:6 smooth:6",
    "two_inputs": "film.0:12 film.2:8 stem.0:8",
    "siamese": "tower.0.0:8 tower.1.0:10",
    "bilinear": "tower.0:12 tower.2:8",
    "wave": "stem:8 gates.0:8 gates.1:8",
    "video": "0:6 3:8 6:6",
    "frames": "net.0.0:8 net.1.0:6",
    "perceptron": "0:20 3:16 6:12",
    "lstm": "front.0:8 head.0:12",
    "gru": "front.0:8 head.0:12",
    "vit": "blocks.0.mlp.0:20 blocks.1.mlp.0:20",
    "vit_fused": "blocks.0.mlp.0:20 blocks.1.mlp.0:20",
    "swin": "one.mlp.0:20 two.mlp.0:20 three.mlp.0:20",
    "language": "blocks.0.mlp.0:20 blocks.1.mlp.0:20",
    "tied_mlp": "tokens:8 up:20",
    "library": "encoder.layers.0.linear1:20 encoder.layers.1.linear1:20 pool.out_proj:8 head.0:12",
    "non_local": "stem.0:8 g:6",
    "gated_mlp": "embed:8 wide:12",
    "Gram": "stem.0:8 last.0:6",
    "RootedGram": "stem.0:8 last.0:6",
    "SpelledGram": "stem.0:8 last.0:6",
    "TwoStreams": "left.0:8 right.0:6",
    "FlatGram": "stem.0:8",
    "GramOfGram": "stem.0:8 wide:7",
    "GatedGram": "stem.0:8",
    "LargestPair": "stem.0:8",
    "RowNorms": "stem.0:8",
    "WeightedPairs": "stem.0:8",
    "ChannelAttention": "stem.0:8",
    "Embedding": "stem.0:8 last.0:6",
}
"""Prunable groups in the order of the forward pass."""

FROZEN: Mapping[str, tuple[str, ...]] = {
    "UntiedHalves": ("stem:8 trial pruning",),
    "UnequalSplit": ("stem:8 aten.split_with_sizes",),
    "EfficientChannelAttention": (
        "stem:8 aten.conv1d",
        "mix:1 aten.mul",
    ),
    "SpatialAttention": (
        "stem:8 aten.mean",
        "mix:1 aten.mul",
    ),
    "GlobalResponseNorm": ("stem:8 aten.mean",),
    "SliceAssigned": ("stem:3 aten.slice",),
    "TemporalShift": ("stem:8 aten.copy_",),
    "CatZeros": ("stem:4 aten.slice",),
    "LiteralView": ("fold:8 trial pruning",),
    "CountAsNumber": ("stem:8 trial pruning",),
    "StandardisedWeights": ("stem:8 aten.conv2d",),
    "NormalisedWeights": ("stem:8 aten.conv2d",),
    "Unfolded": ("stem:8 aten.im2col",),
    "Mixer": (
        "tokens.0:10 aten.linear",
        "tokens.2:64 aten.linear",
    ),
    "LocalResponse": ("stem:8 aten.pad",),
    "Permuted": ("inner:8 aten.index",),
    "Res2": ("stem:8 trial pruning",),
    "shufflenet_v1": ("1.a.0:12 single",),
    "shufflenet_v2": ("1.short.1.0:6 single",),
    "ghostnet": (
        "2.one.primary.0:6 aten.slice",
        "2.two.primary.0:5 aten.slice",
    ),
    "lstm": ("front.2:6 aten.lstm",),
    "gru": ("front.2:6 aten.gru",),
    "vit": (
        "patch:8 trial pruning",
        "blocks.0.attention.qkv:24 aten.matmul",
        "blocks.1.attention.qkv:24 aten.matmul",
    ),
    "vit_fused": (
        "patch:8 trial pruning",
        "blocks.0.attention.qkv:24 aten.scaled_dot_product_attention",
        "blocks.1.attention.qkv:24 aten.scaled_dot_product_attention",
    ),
    "swin": (
        "patch.0:8 trial pruning",
        "one.attention.qkv:24 aten.matmul",
        "two.attention.qkv:24 aten.matmul",
        "merge:12 trial pruning",
        "three.attention.qkv:36 aten.matmul",
    ),
    "language": (
        "tokens:8 trial pruning",
        "blocks.0.attention.qkv:24 aten.scaled_dot_product_attention",
        "blocks.1.attention.qkv:24 aten.scaled_dot_product_attention",
        "tokens:11 trial pruning",
    ),
    "library": (
        "embed:8 aten.linear",
        "encoder.layers.0.self_attn:24 aten.scaled_dot_product_attention",
        "encoder.layers.1.self_attn:24 aten.scaled_dot_product_attention",
    ),
    "non_local": (
        "theta:4 aten.matmul",
        "phi:4 aten.matmul",
    ),
    "FlatGram": ("last.0:6 aten.flatten",),
    "GramOfGram": ("last.0:6 aten.matmul",),
    "GatedGram": ("last.0:6 trial pruning",),
    "LargestPair": ("last.0:6 aten.linalg_vector_norm",),
    "RowNorms": ("last.0:6 aten.linalg_vector_norm",),
    "WeightedPairs": ("last.0:6 aten.mul",),
    "ChannelAttention": ("last.0:6 aten.softmax",),
}
"""Layers that stay (the outputs left out): layer:channels and the operation that freezes them."""
