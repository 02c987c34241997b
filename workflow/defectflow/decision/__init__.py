"""From scores to decisions: thresholds, the score for people, damaged regions."""
