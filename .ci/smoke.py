"""The built wheel in an empty environment: types of the single-module face, the command line, a study from nothing."""

import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def run(*command: str, code: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


Path("user.py").write_text("import secateur as sc\n\nreveal_type(sc.cost)\nreveal_type(sc.__version__)\n")
types = run(str(BIN / "mypy"), "--strict", "user.py")
assert "backbones.structure.Structure) -> backbones.cost.Cost" in types, types
assert '"str"' in types, types

Path("wrong.py").write_text("import secateur as sc\n\nsc.cost(1, 2)\n")
assert 'incompatible type "int"' in run(str(BIN / "mypy"), "--strict", "wrong.py", code=1)

version = run(sys.executable, "-c", "import secateur; print(secateur.__version__)").strip()
assert run(str(BIN / "secateur"), "--version").strip() == f"secateur {version}"
assert run(sys.executable, "-m", "secateur", "--version").strip() == f"secateur {version}"

run(str(BIN / "secateur"), "init", "study.toml")
print(run(str(BIN / "secateur"), "run", "study.toml", "--trials", "20", "--quiet"))
assert Path("runs/digits/report.html").stat().st_size > 10_000
print("wheel: types, command line and a first study work in an empty environment")
