"""Draw docs/rooms.svg, the map of rooms, from the imports of the package: `python docs/draw_rooms.py [FILE]`.

Standard library only. A test compares the picture in the tree with what this draws.
"""

import ast
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workflow/defectflow"
WIDE, HIGH, GAP, BETWEEN, MARGIN = 116, 40, 26, 46, 24  # pixels: of a box, and between boxes and rows


def order() -> list[str]:
    """Rooms in the order of the data, as the contract in pyproject.toml has it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "rooms")
    return layers[::-1]


def arrows() -> dict[tuple[str, str], bool]:
    """(room, room that it imports): whether it does so when it is loaded, and not inside functions alone."""
    found: dict[tuple[str, str], bool] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        if path.parent == PACKAGE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_once = {id(node) for node in tree.body}
        checked = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) for n in node.body}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == PACKAGE.name and parts[1] != room and id(node) not in checked:
                    key = room, parts[1]
                    found[key] = found.get(key, False) or id(node) in at_once
    return found


def reduced(edges: dict[tuple[str, str], bool]) -> dict[tuple[str, str], bool]:
    """Without the arrows that follow from others."""

    def reach(room: str, without: tuple[str, str]) -> set[str]:
        todo, seen = [room], set()
        while todo:
            here = todo.pop()
            for edge in edges:
                if edge[0] == here and edge != without and edge[1] not in seen:
                    seen.add(edge[1])
                    todo.append(edge[1])
        return seen

    return {edge: at_once for edge, at_once in edges.items() if edge[1] not in reach(edge[0], edge)}


def rows_of(rooms: list[str], edges: dict[tuple[str, str], bool]) -> list[list]:
    """Rooms by row, each below all that it imports; where an arrow crosses a row, the arrow holds a place in it.

    Rows are sorted so that what is joined lies near: by the mean place of what is joined to it in the row before.
    """
    row: dict[str, int] = {}
    for room in rooms:
        row[room] = max((row[b] + 1 for a, b in edges if a == room), default=0)
    # Those that import nothing that would hold them up lie near their first user.
    for room in reversed(rooms):
        if not any(a == room for a, b in edges):
            row[room] = max(0, min(row[a] for a, b in edges if b == room) - 1)
    lines: list[list] = [[room for room in rooms if row[room] == k] for k in range(max(row.values()) + 1)]
    joined: dict = {}
    for edge in sorted(edges):
        user, used = edge
        chain = [used, *((edge, k) for k in range(row[used] + 1, row[user])), user]
        for k, item in enumerate(chain[1:-1], row[used] + 1):
            lines[k].append(item)
        for above, below in pairwise(chain):
            joined.setdefault(above, []).append(below)
            joined.setdefault(below, []).append(above)
    for sweep in range(8):
        place = {item: k - len(line) / 2 for line in lines for k, item in enumerate(line)}
        for number in range(1, len(lines)) if sweep % 2 == 0 else range(len(lines) - 2, -1, -1):
            other = lines[number - 1] if sweep % 2 == 0 else lines[number + 1]
            near = {item: [place[n] for n in joined.get(item, ()) if n in other] for item in lines[number]}
            lines[number].sort(key=lambda item: sum(near[item]) / len(near[item]) if near[item] else place[item])
            place |= {item: k - len(lines[number]) / 2 for k, item in enumerate(lines[number])}
    return lines


def picture() -> str:
    """The map as SVG."""
    rooms = order()
    edges = reduced(arrows())
    rows = rows_of(rooms, edges)
    counts = {room: sum(p.name != "__init__.py" for p in (PACKAGE / room).rglob("*.py")) for room in rooms}
    wide = {item: WIDE if item in rooms else 0 for line in rows for item in line}
    spans = [sum(wide[item] + GAP for item in line) - GAP for line in rows]
    width, height = max(spans) + 2 * MARGIN, len(rows) * (HIGH + BETWEEN) - BETWEEN + 2 * MARGIN
    left, top = {}, {}
    for number, (line, span) in enumerate(zip(rows, spans, strict=True)):
        x = (width - span) / 2
        for item in line:
            left[item], top[item] = x, MARGIN + number * (HIGH + BETWEEN)
            x += wide[item] + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">',
        "<title>Rooms of the package: an arrow leads from a room to one that imports it</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#4a6078"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
    ]
    for edge, at_once in sorted(edges.items()):
        user, used = edge
        x, y = left[used] + WIDE / 2, top[used] + HIGH
        path = f"M{x:g} {y:g}"
        for item in [*sorted((i for i in left if i[0] == edge), key=lambda i: i[1]), user]:
            u, v = left[item] + wide[item] / 2, top[item]
            path += f"C{x:g} {y + BETWEEN / 2:g} {u:g} {v - BETWEEN / 2:g} {u:g} {v:g}"
            if item != user:
                path += f"V{v + HIGH:g}"
            x, y = u, v + HIGH
        dash = "" if at_once else ' stroke-dasharray="5 4"'
        lines.append(f'<path d="{path}" fill="none" stroke="#4a6078"{dash} marker-end="url(#tip)"/>')
    for room in rooms:
        x, y = left[room], top[room]
        lines += [
            f'<rect x="{x:g}" y="{y:g}" width="{WIDE}" height="{HIGH}" rx="6" fill="#eaf1f8" stroke="#4a6078"/>',
            f'<text x="{x + WIDE / 2:g}" y="{y + 18:g}" text-anchor="middle" font-size="14">{escape(room)}</text>',
            f'<text x="{x + WIDE / 2:g}" y="{y + 33:g}" text-anchor="middle" font-size="10" fill="#555555">'
            f"{counts[room]} {'module' if counts[room] == 1 else 'modules'}</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs/rooms.svg").write_text(picture(), encoding="utf-8")
