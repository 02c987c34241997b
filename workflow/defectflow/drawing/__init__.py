"""How results are drawn: heat, overlays, contact sheets and charts."""
