"""Owns ResNet-50 (He et al. 2015, with the stride in the 3×3 convolution, as torchvision and NVIDIA train it).

Built here, because an image need not carry torchvision. 25,557,032 parameters.
Must not know what is measured with it.
"""

from __future__ import annotations

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first block
EXPANSION = 4
CLASSES = 1000


def resnet50(torch):
    """A ResNet-50 with PyTorch's default initialisation (convolutions: Kaiming, fan out)."""
    nn = torch.nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            outputs = width * EXPANSION
            self.body = nn.Sequential(
                *_convolution(nn, inputs, width, 1, 1),
                nn.ReLU(inplace=True),
                *_convolution(nn, width, width, 3, stride),
                nn.ReLU(inplace=True),
                *_convolution(nn, width, outputs, 1, 1),
            )
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(*_convolution(nn, inputs, outputs, 1, stride))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, images):
            return self.relu(self.body(images) + self.shortcut(images))

    layers = [*_convolution(nn, 3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    inputs = 64
    for width, blocks, stride in STAGES:
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = width * EXPANSION
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)]
    return nn.Sequential(*layers)


def _convolution(nn, inputs, outputs, kernel, stride):
    """A convolution without bias, and its batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs)
