"""Stop and go on, and many workers on one study: nothing is lost, nothing is done twice.

Run it with: .venv/bin/python studies/tutorials/resume_and_workers.py    (seconds)
"""

import multiprocessing
from pathlib import Path

import torch
from torch import nn

import secateur as sc

FOLDER = Path("runs/resume_and_workers")
STORAGE = f"sqlite:///{FOLDER}/study.db"  # for processes of one machine; postgresql+psycopg://... for many machines


def opened(name: str) -> sc.Study:
    """The same arguments open the same study, in any process; others are refused, with what differs."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU()) for i, o in [(1, 32), (32, 64)]]
    model, data = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10)).eval(), sc.load_data("digits")
    graph, budget = sc.trace(model, data.example), sc.Budget(macs="30%..50%")
    return sc.Study(name, model, graph, data, budget=budget, space="ratios", storage=STORAGE, folder=FOLDER)


def stop_after_five(study: sc.Study, _: object) -> None:  # as Ctrl-C would
    if len(study.candidates()) == 5:
        raise KeyboardInterrupt


def work() -> None:
    """One worker: shares the search with all others until the study has 10 trials."""
    opened("shared").work(trials=10)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        opened("alone").search(trials=8, callbacks=[stop_after_five])
    except KeyboardInterrupt:
        print(f"stopped: {len(sc.open_study(STORAGE, 'alone').candidates())} trials")
    opened("alone").search(trials=8)  # the same trials as without the stop
    print(f"alone: {len(sc.open_study(STORAGE, 'alone').candidates())} trials")

    other = multiprocessing.get_context("spawn").Process(target=work)  # as many as you like, started when you like
    other.start()
    work()  # this process is a worker too
    other.join()
    study = sc.open_study(STORAGE, "shared")  # from the storage alone: no network, no data; also while they work
    print(study.status())


if __name__ == "__main__":
    main()
