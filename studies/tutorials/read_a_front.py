"""A front and how to read it: what each MAC buys, which point to take, and whether the search was worth it.

Run it with: .venv/bin/python studies/tutorials/read_a_front.py    (seconds)
"""

from dataclasses import replace
from pathlib import Path

import torch

import secateur as sc

FOLDER = Path("runs/read_a_front")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    data = sc.load_data("digits")
    torch.manual_seed(0)
    model = sc.build("resnet20", num_classes=10, in_channels=1)
    sc.train(model, data, sc.Recipe(epochs=4, batch_size=64, lr=0.1))
    graph = sc.trace(model, data.example)

    # A band asks for a front: structures of 15 % to 60 % of the MACs, each as good as its size allows.
    budget, storage = sc.Budget(macs="15%..60%"), f"sqlite:///{FOLDER}/study.db"
    study = sc.Study("front", model, graph, data, budget=budget, storage=storage, folder=FOLDER)
    study.search(trials=24)
    front = study.front()
    print(f"{len(front.candidates)} trials, {len(front.points())} of them on the front: no other is smaller and better")
    for one in front.points():
        print(f"  {one.id} {one.on('macs'):9,.0f} MACs, {front.scorer} {one.score:.4f}")

    # What simple rules make of the same budget. They are hard to beat: look here before you pay for the retraining.
    rules = tuple(one for name in ("uniform", "sensitivity") for one in sc.baseline(name, study))
    for one in rules:
        found = front.best(macs=one.on("macs"))
        print(f"  {one.label}: {one.score:.4f}, the search within as many MACs: {found.score:.4f}")

    # A score is a guess; retrained accuracy decides. `top` structures are taken at even steps over the band.
    front = study.retrain(top=3, recipe=sc.Recipe(epochs=2, batch_size=64))
    for one in front.points():
        print(
            f"  {one.on('macs') or 0:>12,.0f} MACs, {one.accuracy:.1%} on validation, {one.test_accuracy:.1%} on test"
        )
    print(f"best: {front.best().id}, best within 30 %: {front.best(macs='30%').id}, knee: {front.knee().id}")
    sc.plot_front(replace(front, baselines=rules), FOLDER / "front.png")  # .svg and .html too
    front.save(FOLDER)  # front.csv and front.json; sc.Front.load(FOLDER) reads them


if __name__ == "__main__":
    main()
