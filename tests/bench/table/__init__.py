"""The table of goals: statistics, goals, files of runs, and what is printed."""
