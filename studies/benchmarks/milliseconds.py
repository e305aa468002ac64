"""What structures of equal MACs take by the clock: a batch of 128 and one image, side by side.

    SECATEUR_DATA=... python studies/search_pays.py --network resnet56 ...    # finds the structures
    OMP_NUM_THREADS=1 SECATEUR_DATA=... python studies/benchmarks/milliseconds.py --network resnet56

Every structure in runs/search-pays/<network>/, cut and not trained, in torch; medians of fifteen rounds in which the
networks take turns (`search.review.footprint`), as shares of the dense network's. Kept in milliseconds.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import secateur as sc
from backbones.files import write_text
from search.review.footprint import footprints
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study

HERE = Path(__file__).resolve().parent
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--out", type=Path, default=HERE / "milliseconds.json")
    options = parser.parse_args()
    inputs = load_inputs(read_study(HERE.parent / f"scorers_{options.network}.toml"), HERE.parent, "cpu")
    networks, gone = {"dense": inputs.model.eval()}, {"dense": 0}
    for path in sorted(Path("runs/search-pays", options.network).glob("*.json")):
        structure = sc.Structure.from_json(json.dumps(json.loads(path.read_text())["structure"]))
        networks[path.stem] = sc.prune(inputs.model, inputs.graph, structure, check=False).eval()
        gone[path.stem] = len(structure.removed)
    found = footprints(networks, inputs.data.batch(BATCH, 0)[0])
    rows = {}
    for name, one in found.items():
        assert one.single is not None
        assert found["dense"].single is not None
        batch, single = one.latency / found["dense"].latency, one.single / found["dense"].single
        rows[name] = {"layers removed": gone[name], "batch": batch, "single": single}
        print(
            f"{name:50s} {gone[name]} layers removed, of the dense network's time {batch:.3f}, one image {single:.3f}"
        )
    write_text(options.out, json.dumps({"environment": environment(), options.network: rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
