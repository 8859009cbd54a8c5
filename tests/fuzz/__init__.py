"""Fuzzing: parsers of untrusted bytes, with inputs that are found by coverage. ``make fuzz``; see CONTRIBUTING.md."""
