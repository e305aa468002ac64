# What type checkers see for `import secateur`: the same names as secateur.py, which a py.typed cannot cover.
from backbones.cost import Cost as Cost
from backbones.cost import cost as cost
from backbones.errors import SecateurError as SecateurError
from backbones.graph import ChannelGraph as ChannelGraph
from backbones.graph import Group as Group
from backbones.structure import Structure as Structure

__version__: str
