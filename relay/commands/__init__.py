"""The commands of ``stream-relay``. Each reads its arguments and calls the code of another package."""
