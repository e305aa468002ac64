"""The layers of torchvision's networks in the order of their state dict, read off torchvision 0.29.1 with weights=None.

`name:shape` is a convolution or linear layer with a weight of that shape, `+b` one with a bias; `name:normN` a batch
norm over N channels.
"""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def torchvision_state(name: str) -> Shapes:
    """Every key of the state dict of a torchvision network with 1,000 classes, and its shape."""
    state: dict[str, tuple[int, ...]] = {}
    for layer in TORCHVISION[name].split():
        path, _, form = layer.partition(":")
        if form.startswith("norm"):
            width = int(form.removeprefix("norm"))
            state |= {f"{path}.{key}": (width,) for key in ("weight", "bias", "running_mean", "running_var")}
            state[f"{path}.num_batches_tracked"] = ()
        else:
            shape = tuple(int(size) for size in form.removesuffix("+b").split("x"))
            state[f"{path}.weight"] = shape
            if form.endswith("+b"):
                state[f"{path}.bias"] = shape[:1]
    return state


TORCHVISION: Mapping[str, str] = {
    "alexnet": """
features.0:64x3x11x11+b features.3:192x64x5x5+b features.6:384x192x3x3+b features.8:256x384x3x3+b
features.10:256x256x3x3+b classifier.1:4096x9216+b classifier.4:4096x4096+b classifier.6:1000x4096+b
""",
    "vgg16": """
features.0:64x3x3x3+b features.2:64x64x3x3+b features.5:128x64x3x3+b features.7:128x128x3x3+b
features.10:256x128x3x3+b features.12:256x256x3x3+b features.14:256x256x3x3+b features.17:512x256x3x3+b
features.19:512x512x3x3+b features.21:512x512x3x3+b features.24:512x512x3x3+b features.26:512x512x3x3+b
features.28:512x512x3x3+b classifier.0:4096x25088+b classifier.3:4096x4096+b classifier.6:1000x4096+b
""",
    "vgg16_bn": """
features.0:64x3x3x3+b features.1:norm64 features.3:64x64x3x3+b features.4:norm64 features.7:128x64x3x3+b
features.8:norm128 features.10:128x128x3x3+b features.11:norm128 features.14:256x128x3x3+b features.15:norm256
features.17:256x256x3x3+b features.18:norm256 features.20:256x256x3x3+b features.21:norm256 features.24:512x256x3x3+b
features.25:norm512 features.27:512x512x3x3+b features.28:norm512 features.30:512x512x3x3+b features.31:norm512
features.34:512x512x3x3+b features.35:norm512 features.37:512x512x3x3+b features.38:norm512 features.40:512x512x3x3+b
features.41:norm512 classifier.0:4096x25088+b classifier.3:4096x4096+b classifier.6:1000x4096+b
""",
    "resnet18": """
conv1:64x3x7x7 bn1:norm64 layer1.0.conv1:64x64x3x3 layer1.0.bn1:norm64 layer1.0.conv2:64x64x3x3 layer1.0.bn2:norm64
layer1.1.conv1:64x64x3x3 layer1.1.bn1:norm64 layer1.1.conv2:64x64x3x3 layer1.1.bn2:norm64 layer2.0.conv1:128x64x3x3
layer2.0.bn1:norm128 layer2.0.conv2:128x128x3x3 layer2.0.bn2:norm128 layer2.0.downsample.0:128x64x1x1
layer2.0.downsample.1:norm128 layer2.1.conv1:128x128x3x3 layer2.1.bn1:norm128 layer2.1.conv2:128x128x3x3
layer2.1.bn2:norm128 layer3.0.conv1:256x128x3x3 layer3.0.bn1:norm256 layer3.0.conv2:256x256x3x3 layer3.0.bn2:norm256
layer3.0.downsample.0:256x128x1x1 layer3.0.downsample.1:norm256 layer3.1.conv1:256x256x3x3 layer3.1.bn1:norm256
layer3.1.conv2:256x256x3x3 layer3.1.bn2:norm256 layer4.0.conv1:512x256x3x3 layer4.0.bn1:norm512
layer4.0.conv2:512x512x3x3 layer4.0.bn2:norm512 layer4.0.downsample.0:512x256x1x1 layer4.0.downsample.1:norm512
layer4.1.conv1:512x512x3x3 layer4.1.bn1:norm512 layer4.1.conv2:512x512x3x3 layer4.1.bn2:norm512 fc:1000x512+b
""",
    "resnet34": """
conv1:64x3x7x7 bn1:norm64 layer1.0.conv1:64x64x3x3 layer1.0.bn1:norm64 layer1.0.conv2:64x64x3x3 layer1.0.bn2:norm64
layer1.1.conv1:64x64x3x3 layer1.1.bn1:norm64 layer1.1.conv2:64x64x3x3 layer1.1.bn2:norm64 layer1.2.conv1:64x64x3x3
layer1.2.bn1:norm64 layer1.2.conv2:64x64x3x3 layer1.2.bn2:norm64 layer2.0.conv1:128x64x3x3 layer2.0.bn1:norm128
layer2.0.conv2:128x128x3x3 layer2.0.bn2:norm128 layer2.0.downsample.0:128x64x1x1 layer2.0.downsample.1:norm128
layer2.1.conv1:128x128x3x3 layer2.1.bn1:norm128 layer2.1.conv2:128x128x3x3 layer2.1.bn2:norm128
layer2.2.conv1:128x128x3x3 layer2.2.bn1:norm128 layer2.2.conv2:128x128x3x3 layer2.2.bn2:norm128
layer2.3.conv1:128x128x3x3 layer2.3.bn1:norm128 layer2.3.conv2:128x128x3x3 layer2.3.bn2:norm128
layer3.0.conv1:256x128x3x3 layer3.0.bn1:norm256 layer3.0.conv2:256x256x3x3 layer3.0.bn2:norm256
layer3.0.downsample.0:256x128x1x1 layer3.0.downsample.1:norm256 layer3.1.conv1:256x256x3x3 layer3.1.bn1:norm256
layer3.1.conv2:256x256x3x3 layer3.1.bn2:norm256 layer3.2.conv1:256x256x3x3 layer3.2.bn1:norm256
layer3.2.conv2:256x256x3x3 layer3.2.bn2:norm256 layer3.3.conv1:256x256x3x3 layer3.3.bn1:norm256
layer3.3.conv2:256x256x3x3 layer3.3.bn2:norm256 layer3.4.conv1:256x256x3x3 layer3.4.bn1:norm256
layer3.4.conv2:256x256x3x3 layer3.4.bn2:norm256 layer3.5.conv1:256x256x3x3 layer3.5.bn1:norm256
layer3.5.conv2:256x256x3x3 layer3.5.bn2:norm256 layer4.0.conv1:512x256x3x3 layer4.0.bn1:norm512
layer4.0.conv2:512x512x3x3 layer4.0.bn2:norm512 layer4.0.downsample.0:512x256x1x1 layer4.0.downsample.1:norm512
layer4.1.conv1:512x512x3x3 layer4.1.bn1:norm512 layer4.1.conv2:512x512x3x3 layer4.1.bn2:norm512
layer4.2.conv1:512x512x3x3 layer4.2.bn1:norm512 layer4.2.conv2:512x512x3x3 layer4.2.bn2:norm512 fc:1000x512+b
""",
    "resnet50": """
conv1:64x3x7x7 bn1:norm64 layer1.0.conv1:64x64x1x1 layer1.0.bn1:norm64 layer1.0.conv2:64x64x3x3 layer1.0.bn2:norm64
layer1.0.conv3:256x64x1x1 layer1.0.bn3:norm256 layer1.0.downsample.0:256x64x1x1 layer1.0.downsample.1:norm256
layer1.1.conv1:64x256x1x1 layer1.1.bn1:norm64 layer1.1.conv2:64x64x3x3 layer1.1.bn2:norm64 layer1.1.conv3:256x64x1x1
layer1.1.bn3:norm256 layer1.2.conv1:64x256x1x1 layer1.2.bn1:norm64 layer1.2.conv2:64x64x3x3 layer1.2.bn2:norm64
layer1.2.conv3:256x64x1x1 layer1.2.bn3:norm256 layer2.0.conv1:128x256x1x1 layer2.0.bn1:norm128
layer2.0.conv2:128x128x3x3 layer2.0.bn2:norm128 layer2.0.conv3:512x128x1x1 layer2.0.bn3:norm512
layer2.0.downsample.0:512x256x1x1 layer2.0.downsample.1:norm512 layer2.1.conv1:128x512x1x1 layer2.1.bn1:norm128
layer2.1.conv2:128x128x3x3 layer2.1.bn2:norm128 layer2.1.conv3:512x128x1x1 layer2.1.bn3:norm512
layer2.2.conv1:128x512x1x1 layer2.2.bn1:norm128 layer2.2.conv2:128x128x3x3 layer2.2.bn2:norm128
layer2.2.conv3:512x128x1x1 layer2.2.bn3:norm512 layer2.3.conv1:128x512x1x1 layer2.3.bn1:norm128
layer2.3.conv2:128x128x3x3 layer2.3.bn2:norm128 layer2.3.conv3:512x128x1x1 layer2.3.bn3:norm512
layer3.0.conv1:256x512x1x1 layer3.0.bn1:norm256 layer3.0.conv2:256x256x3x3 layer3.0.bn2:norm256
layer3.0.conv3:1024x256x1x1 layer3.0.bn3:norm1024 layer3.0.downsample.0:1024x512x1x1 layer3.0.downsample.1:norm1024
layer3.1.conv1:256x1024x1x1 layer3.1.bn1:norm256 layer3.1.conv2:256x256x3x3 layer3.1.bn2:norm256
layer3.1.conv3:1024x256x1x1 layer3.1.bn3:norm1024 layer3.2.conv1:256x1024x1x1 layer3.2.bn1:norm256
layer3.2.conv2:256x256x3x3 layer3.2.bn2:norm256 layer3.2.conv3:1024x256x1x1 layer3.2.bn3:norm1024
layer3.3.conv1:256x1024x1x1 layer3.3.bn1:norm256 layer3.3.conv2:256x256x3x3 layer3.3.bn2:norm256
layer3.3.conv3:1024x256x1x1 layer3.3.bn3:norm1024 layer3.4.conv1:256x1024x1x1 layer3.4.bn1:norm256
layer3.4.conv2:256x256x3x3 layer3.4.bn2:norm256 layer3.4.conv3:1024x256x1x1 layer3.4.bn3:norm1024
layer3.5.conv1:256x1024x1x1 layer3.5.bn1:norm256 layer3.5.conv2:256x256x3x3 layer3.5.bn2:norm256
layer3.5.conv3:1024x256x1x1 layer3.5.bn3:norm1024 layer4.0.conv1:512x1024x1x1 layer4.0.bn1:norm512
layer4.0.conv2:512x512x3x3 layer4.0.bn2:norm512 layer4.0.conv3:2048x512x1x1 layer4.0.bn3:norm2048
layer4.0.downsample.0:2048x1024x1x1 layer4.0.downsample.1:norm2048 layer4.1.conv1:512x2048x1x1 layer4.1.bn1:norm512
layer4.1.conv2:512x512x3x3 layer4.1.bn2:norm512 layer4.1.conv3:2048x512x1x1 layer4.1.bn3:norm2048
layer4.2.conv1:512x2048x1x1 layer4.2.bn1:norm512 layer4.2.conv2:512x512x3x3 layer4.2.bn2:norm512
layer4.2.conv3:2048x512x1x1 layer4.2.bn3:norm2048 fc:1000x2048+b
""",
    "mobilenet_v3_small": """
features.0.0:16x3x3x3 features.0.1:norm16 features.1.block.0.0:16x1x3x3 features.1.block.0.1:norm16
features.1.block.1.fc1:8x16x1x1+b features.1.block.1.fc2:16x8x1x1+b features.1.block.2.0:16x16x1x1
features.1.block.2.1:norm16 features.2.block.0.0:72x16x1x1 features.2.block.0.1:norm72 features.2.block.1.0:72x1x3x3
features.2.block.1.1:norm72 features.2.block.2.0:24x72x1x1 features.2.block.2.1:norm24 features.3.block.0.0:88x24x1x1
features.3.block.0.1:norm88 features.3.block.1.0:88x1x3x3 features.3.block.1.1:norm88 features.3.block.2.0:24x88x1x1
features.3.block.2.1:norm24 features.4.block.0.0:96x24x1x1 features.4.block.0.1:norm96 features.4.block.1.0:96x1x5x5
features.4.block.1.1:norm96 features.4.block.2.fc1:24x96x1x1+b features.4.block.2.fc2:96x24x1x1+b
features.4.block.3.0:40x96x1x1 features.4.block.3.1:norm40 features.5.block.0.0:240x40x1x1
features.5.block.0.1:norm240 features.5.block.1.0:240x1x5x5 features.5.block.1.1:norm240
features.5.block.2.fc1:64x240x1x1+b features.5.block.2.fc2:240x64x1x1+b features.5.block.3.0:40x240x1x1
features.5.block.3.1:norm40 features.6.block.0.0:240x40x1x1 features.6.block.0.1:norm240
features.6.block.1.0:240x1x5x5 features.6.block.1.1:norm240 features.6.block.2.fc1:64x240x1x1+b
features.6.block.2.fc2:240x64x1x1+b features.6.block.3.0:40x240x1x1 features.6.block.3.1:norm40
features.7.block.0.0:120x40x1x1 features.7.block.0.1:norm120 features.7.block.1.0:120x1x5x5
features.7.block.1.1:norm120 features.7.block.2.fc1:32x120x1x1+b features.7.block.2.fc2:120x32x1x1+b
features.7.block.3.0:48x120x1x1 features.7.block.3.1:norm48 features.8.block.0.0:144x48x1x1
features.8.block.0.1:norm144 features.8.block.1.0:144x1x5x5 features.8.block.1.1:norm144
features.8.block.2.fc1:40x144x1x1+b features.8.block.2.fc2:144x40x1x1+b features.8.block.3.0:48x144x1x1
features.8.block.3.1:norm48 features.9.block.0.0:288x48x1x1 features.9.block.0.1:norm288
features.9.block.1.0:288x1x5x5 features.9.block.1.1:norm288 features.9.block.2.fc1:72x288x1x1+b
features.9.block.2.fc2:288x72x1x1+b features.9.block.3.0:96x288x1x1 features.9.block.3.1:norm96
features.10.block.0.0:576x96x1x1 features.10.block.0.1:norm576 features.10.block.1.0:576x1x5x5
features.10.block.1.1:norm576 features.10.block.2.fc1:144x576x1x1+b features.10.block.2.fc2:576x144x1x1+b
features.10.block.3.0:96x576x1x1 features.10.block.3.1:norm96 features.11.block.0.0:576x96x1x1
features.11.block.0.1:norm576 features.11.block.1.0:576x1x5x5 features.11.block.1.1:norm576
features.11.block.2.fc1:144x576x1x1+b features.11.block.2.fc2:576x144x1x1+b features.11.block.3.0:96x576x1x1
features.11.block.3.1:norm96 features.12.0:576x96x1x1 features.12.1:norm576 classifier.0:1024x576+b
classifier.3:1000x1024+b
""",
    "mobilenet_v3_large": """
features.0.0:16x3x3x3 features.0.1:norm16 features.1.block.0.0:16x1x3x3 features.1.block.0.1:norm16
features.1.block.1.0:16x16x1x1 features.1.block.1.1:norm16 features.2.block.0.0:64x16x1x1 features.2.block.0.1:norm64
features.2.block.1.0:64x1x3x3 features.2.block.1.1:norm64 features.2.block.2.0:24x64x1x1 features.2.block.2.1:norm24
features.3.block.0.0:72x24x1x1 features.3.block.0.1:norm72 features.3.block.1.0:72x1x3x3 features.3.block.1.1:norm72
features.3.block.2.0:24x72x1x1 features.3.block.2.1:norm24 features.4.block.0.0:72x24x1x1 features.4.block.0.1:norm72
features.4.block.1.0:72x1x5x5 features.4.block.1.1:norm72 features.4.block.2.fc1:24x72x1x1+b
features.4.block.2.fc2:72x24x1x1+b features.4.block.3.0:40x72x1x1 features.4.block.3.1:norm40
features.5.block.0.0:120x40x1x1 features.5.block.0.1:norm120 features.5.block.1.0:120x1x5x5
features.5.block.1.1:norm120 features.5.block.2.fc1:32x120x1x1+b features.5.block.2.fc2:120x32x1x1+b
features.5.block.3.0:40x120x1x1 features.5.block.3.1:norm40 features.6.block.0.0:120x40x1x1
features.6.block.0.1:norm120 features.6.block.1.0:120x1x5x5 features.6.block.1.1:norm120
features.6.block.2.fc1:32x120x1x1+b features.6.block.2.fc2:120x32x1x1+b features.6.block.3.0:40x120x1x1
features.6.block.3.1:norm40 features.7.block.0.0:240x40x1x1 features.7.block.0.1:norm240
features.7.block.1.0:240x1x3x3 features.7.block.1.1:norm240 features.7.block.2.0:80x240x1x1
features.7.block.2.1:norm80 features.8.block.0.0:200x80x1x1 features.8.block.0.1:norm200
features.8.block.1.0:200x1x3x3 features.8.block.1.1:norm200 features.8.block.2.0:80x200x1x1
features.8.block.2.1:norm80 features.9.block.0.0:184x80x1x1 features.9.block.0.1:norm184
features.9.block.1.0:184x1x3x3 features.9.block.1.1:norm184 features.9.block.2.0:80x184x1x1
features.9.block.2.1:norm80 features.10.block.0.0:184x80x1x1 features.10.block.0.1:norm184
features.10.block.1.0:184x1x3x3 features.10.block.1.1:norm184 features.10.block.2.0:80x184x1x1
features.10.block.2.1:norm80 features.11.block.0.0:480x80x1x1 features.11.block.0.1:norm480
features.11.block.1.0:480x1x3x3 features.11.block.1.1:norm480 features.11.block.2.fc1:120x480x1x1+b
features.11.block.2.fc2:480x120x1x1+b features.11.block.3.0:112x480x1x1 features.11.block.3.1:norm112
features.12.block.0.0:672x112x1x1 features.12.block.0.1:norm672 features.12.block.1.0:672x1x3x3
features.12.block.1.1:norm672 features.12.block.2.fc1:168x672x1x1+b features.12.block.2.fc2:672x168x1x1+b
features.12.block.3.0:112x672x1x1 features.12.block.3.1:norm112 features.13.block.0.0:672x112x1x1
features.13.block.0.1:norm672 features.13.block.1.0:672x1x5x5 features.13.block.1.1:norm672
features.13.block.2.fc1:168x672x1x1+b features.13.block.2.fc2:672x168x1x1+b features.13.block.3.0:160x672x1x1
features.13.block.3.1:norm160 features.14.block.0.0:960x160x1x1 features.14.block.0.1:norm960
features.14.block.1.0:960x1x5x5 features.14.block.1.1:norm960 features.14.block.2.fc1:240x960x1x1+b
features.14.block.2.fc2:960x240x1x1+b features.14.block.3.0:160x960x1x1 features.14.block.3.1:norm160
features.15.block.0.0:960x160x1x1 features.15.block.0.1:norm960 features.15.block.1.0:960x1x5x5
features.15.block.1.1:norm960 features.15.block.2.fc1:240x960x1x1+b features.15.block.2.fc2:960x240x1x1+b
features.15.block.3.0:160x960x1x1 features.15.block.3.1:norm160 features.16.0:960x160x1x1 features.16.1:norm960
classifier.0:1280x960+b classifier.3:1000x1280+b
""",
}
