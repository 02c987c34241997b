"""The card of a data set: what it holds, how its photographs differ, and what is missing for reliable figures."""
