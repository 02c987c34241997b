"""Pages, tables and pictures that people read: overlays, report, leaderboard, the summary in a terminal."""
