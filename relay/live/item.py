"""A round, or a correction of one, between the log and its clients: parsed once, encoded once per wire form.

Owns when that is done: when the bytes are first asked for. A round without subscribers costs next to nothing, and one
with 10,000 is encoded once per form. Does not know links.
"""

from typing import Literal

import structlog

from relay.live.encode import Form
from roundlog.entry import LogEntry
from rounds import Filter, InvalidRound, Round
from rounds.cursor import cursor_text
from rounds.filter import Facts
from rounds.round import with_cursor
from rounds.subjects import is_corrections

log = structlog.get_logger()


class Item:
    """One round of one log. Not shared between threads."""

    __slots__ = ("_epoch", "_facts", "_json", "_rendered", "_round", "data", "game", "sequence")

    def __init__(self, epoch: str, entry: LogEntry) -> None:
        self.sequence, self.game, self.data = entry
        self._epoch = epoch
        self._round: Round | Literal[False] | None = None  # None: not parsed yet; False: invalid
        self._json: bytes | None = None
        self._facts: Facts | None = None
        self._rendered: dict[Form, bytes] | None = None

    @property
    def is_correction(self) -> bool:
        """Whether it stands among the corrections of a game."""
        return is_corrections(self.game)

    @property
    def cursor(self) -> str:
        """The round's cursor."""
        return cursor_text(self._epoch, self.sequence)

    @property
    def valid(self) -> bool:
        """False when the entry is no round, or no correction: another program wrote to the subject."""
        return (self._parsed() if self._round is None else self._round) is not False

    @property
    def round(self) -> Round:
        """The round itself; only of a `valid` item."""
        round_ = self._round or self._parsed()
        if round_ is False:
            raise InvalidRound(f"nothing valid at {self.cursor}")
        return round_

    @property
    def json(self) -> bytes:
        """The round's JSON with its cursor, as clients get it; only of a `valid` item."""
        if self._json is None:
            self._json = with_cursor(self.round.to_json(), self.cursor)
        return self._json

    @property
    def is_rendered(self) -> bool:
        """Whether `json` was asked for before."""
        return self._json is not None

    def matches(self, filter_: Filter) -> bool:
        """Whether a valid item passes a filter. A correction passes each: the round that it corrects may have."""
        return filter_.is_empty or (facts := self.facts) is None or filter_.matches(facts)

    @property
    def facts(self) -> Facts | None:
        """What filters look at; None: it is a correction, which passes every filter. Only of a `valid` item."""
        if self._facts is None and (round_ := self.round).revision == 1:
            self._facts = Facts.of(round_.extras)
        return self._facts

    def rendered(self, form: Form) -> bytes:
        """The item in one wire form; only of a `valid` item. All callers get the same object."""
        if self._rendered is None:
            self._rendered = {}
        data = self._rendered.get(form)
        if data is None:
            data = self._rendered[form] = form.render(self)
        return data

    def _parsed(self) -> Round | Literal[False]:
        if self._round is None:
            try:
                round_ = Round.parse(self.data)
                # As `Round.parse_stored`, without another call: this is done for each live round.
                if round_.game_slug != self.game or round_.revision != 1 or round_.voided:
                    round_.check_stands(self.game)
                self._round = round_
            except InvalidRound as error:
                log.warning("round_invalid", game=self.game, cursor=self.cursor, error=str(error))
                self._round = False
        return self._round
