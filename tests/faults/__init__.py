"""The fault campaign: real parts, seeded faults, and a judge that knows what was committed and what each client got.

``python -m tests.faults --seed N`` runs it. `plan` decides from the seed what happens. `campaign` runs one schedule on
an `installation`. `kinds` are the faults, `clients` the clients. `judge_log` and `judge_client` compare the results
with what was committed. Figures and limits: docs/reliability.md
"""
