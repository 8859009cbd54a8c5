"""What hostile clients cost a good one: the delay of its rounds while each attack runs, against no attack.

`good` is the client that is measured, with its publisher; `attacker` is the process that attacks, by the attacks in
`frames`, `requests` and `crowds`.
"""
