"""Deploy: widths in multiples of 8, then ONNX and 8-bit ONNX, measured beside the module before anything ships.

Run it with: .venv/bin/python studies/tutorials/deploy.py    (seconds; needs the extra `onnx`)
"""

from pathlib import Path

import torch
from torch import nn

import secateur as sc

FOLDER = Path("runs/deploy")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    data = sc.load_data("digits")
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in ((1, 32), (32, 64))]
    model = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    recipe = sc.Recipe(epochs=6, batch_size=64, lr=0.05)
    sc.train(model, data, recipe)

    # Kernels compute in blocks: 13 channels take the time of 16. So a search may propose multiples only.
    graph, space = sc.trace(model, data.example), sc.Space("ratios", limits=sc.Limits(divisor=8))
    storage = f"sqlite:///{FOLDER}/study.db"
    budget = sc.Budget(macs=0.4)  # or latency="0.2ms", engine="onnxruntime": what its predictions there allow
    study = sc.Study("deploy", model, graph, data, budget=budget, space=space, storage=storage, folder=FOLDER)
    study.search(trials=20)
    best = study.retrain(top=1, recipe=recipe).best()
    small = sc.load(best.save(FOLDER / "small.safetensors"), model).eval()
    print("widths:", ", ".join(f"{group} {len(kept)}" for group, kept in study.structure(best.number).kept))

    # Both exports are run in onnxruntime before the file is there; the first is compared with the module.
    floats, integers = FOLDER / "small.onnx", FOLDER / "small.int8.onnx"
    print(f"largest relative difference: {sc.export_onnx(small, floats, graph.example):.0e}")
    calibration = [data.batch(32, seed)[0] for seed in range(8)]  # training samples; they set the scales of activations
    sc.export_onnx_int8(small, integers, graph.example, calibration)

    # What 8 bits cost in accuracy, and whether they are faster, only a measurement on your machine tells.
    networks = {"dense": model, "small": small, "onnx": sc.OnnxNetwork(floats), "int8": sc.OnnxNetwork(integers)}
    files = {"small": FOLDER / "small.safetensors", "onnx": floats, "int8": integers}
    found = sc.footprints(networks, data.batch(64)[0], files=files)
    for name, network in networks.items():
        one = found[name]
        print(f"{name}: {sc.accuracy(network, data):.1%}, {1e3 * one.latency:.2f} ms a batch, {one.disk:,} bytes")


if __name__ == "__main__":
    main()
