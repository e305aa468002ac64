"""The built wheel in an empty environment: types of the single-module face, the command line, a study from nothing."""

import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
PYRIGHT = '{"typeCheckingMode": "strict", "include": ["user.py", "names.py"]}'
USER = """
import torch
from torch import nn

import secateur as sc


def main(model: nn.Module) -> object:
    images, labels = torch.rand(64, 3, 8, 8), torch.arange(64) % 4
    data = sc.Data.from_tensors("mine", (images, labels), (images, labels))
    graph: sc.ChannelGraph = sc.trace(model, data.example)
    structure = sc.Structure.random(graph, macs=0.3)
    small: nn.Module = sc.prune(model, graph, structure)
    macs: int = sc.cost(graph, structure).macs
    study = sc.Study("mine", model, graph, data, budget=sc.Budget(macs=0.3), storage="sqlite:///mine.db")
    study.search(trials=macs)
    front: sc.Front = study.retrain(top=1, recipe=sc.Recipe(epochs=1))
    knee: sc.Candidate = front.knee()
    print(sc.accuracy(small, data), knee.id, sc.open_study("sqlite:///mine.db").status())
    return front.best(macs="20%").save("small.safetensors")


reveal_type(sc.cost)
reveal_type(sc.__version__)
"""


def run(*command: str, code: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def tool(name: str, *arguments: str, code: int = 0) -> str:
    return run(str(BIN / name), *arguments, code=code)


def types() -> None:
    """Both checkers see every public name, and no part of its type is unknown to them."""
    Path("user.py").write_text(USER)
    names = run(sys.executable, "-c", "import secateur; print(*secateur.__all__)").split()
    Path("names.py").write_text("import secateur as sc\n\n" + "".join(f"print(sc.{name})\n" for name in names))
    Path("pyrightconfig.json").write_text(PYRIGHT)
    seen = tool("mypy", "--strict", "user.py", "names.py")
    assert "backbones.structure.Structure) -> backbones.cost_table.Cost" in seen, seen
    assert '"str"' in seen, seen
    seen = tool("pyright", "--pythonpath", sys.executable)
    assert '"(graph: ChannelGraph, structure: Structure) -> Cost"' in seen, seen
    assert "0 errors, 0 warnings" in seen, seen

    Path("user.py").write_text("import secateur as sc\n\nsc.cost(1, 2)\n")
    assert 'incompatible type "int"' in tool("mypy", "--strict", "user.py", code=1)
    assert 'cannot be assigned to parameter "graph"' in tool("pyright", "--pythonpath", sys.executable, code=1)


def command_line() -> None:
    version = run(sys.executable, "-c", "import secateur; print(secateur.__version__)").strip()
    assert tool("secateur", "--version").strip() == f"secateur {version}"
    assert run(sys.executable, "-m", "secateur", "--version").strip() == f"secateur {version}"
    assert "complete -o" in tool("secateur", "completion", "bash")


def first_study() -> None:
    tool("secateur", "init", "study.toml")
    print(tool("secateur", "run", "study.toml", "--trials", "20", "--quiet"))
    assert Path("runs/digits/report.html").stat().st_size > 10_000


types()
command_line()
first_study()
print("wheel: types, command line and a first study work in an empty environment")
